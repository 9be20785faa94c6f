//! Counts of what nothing else counts, by label value. A tally only grows.

/// How often each of a closed set of things happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tally<L>(Vec<(L, u64)>);

impl<L: Copy + PartialEq> Tally<L> {
    /// Zero of each.
    pub fn new(all: &[L]) -> Self {
        Self(all.iter().map(|label| (*label, 0)).collect())
    }

    /// One more.
    pub fn count(&mut self, label: L) {
        match self.0.iter_mut().find(|(known, _)| *known == label) {
            Some((_, count)) => *count = count.saturating_add(1),
            // A set that was declared incompletely loses no count all the same.
            None => self.0.push((label, 1)),
        }
    }

    /// Everything with its count, zeros included.
    pub fn iter(&self) -> impl Iterator<Item = (L, u64)> + '_ {
        self.0.iter().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_counts_from_zero_and_nothing_is_lost() {
        let mut tally = Tally::new(&['a', 'b']);
        tally.count('b');
        tally.count('c');
        tally.count('b');
        let counts: Vec<_> = tally.iter().collect();
        assert_eq!(counts, [('a', 0), ('b', 2), ('c', 1)]);
    }
}
