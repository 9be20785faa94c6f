//! The internet checksum (RFC 1071): one's complement sums of 16-bit words.

/// The sum of `bytes` as big-endian words, an odd last byte padded with zero; folded to 16 bits.
///
/// Added up as 32-bit words of the machine's byte order, which the compiler turns into vector
/// additions: a one's complement sum does not mind the width of its words, and minds their byte
/// order only at the end (RFC 1071, section 2).
pub(crate) fn sum(bytes: &[u8]) -> u16 {
    let (words, rest) = bytes.as_chunks::<4>();
    let mut total: u64 = words
        .iter()
        .map(|word| u64::from(u32::from_ne_bytes(*word)))
        .sum();
    let mut last = [0; 4];
    for (to, from) in last.iter_mut().zip(rest) {
        *to = *from;
    }
    total += u64::from(u32::from_ne_bytes(last));
    let total = (total >> 32) + (total & 0xFFFF_FFFF);
    u16::from_be(fold(total))
}

/// Folds a sum of words to one word, carries added back in.
pub(crate) fn fold(sum: u64) -> u16 {
    let sum = (sum >> 32) + (sum & 0xFFFF_FFFF);
    let sum = (sum >> 16) + (sum & 0xFFFF);
    let sum = (sum >> 16) + (sum & 0xFFFF);
    ((sum >> 16) + (sum & 0xFFFF)) as u16
}

/// The one's complement sum of two sums.
pub(crate) fn add(a: u16, b: u16) -> u16 {
    let (sum, carry) = a.overflowing_add(b);
    sum + u16::from(carry)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn by_the_book(bytes: &[u8]) -> u16 {
        let words = bytes
            .chunks(2)
            .map(|pair| u64::from(pair[0]) << 8 | u64::from(pair.get(1).copied().unwrap_or(0)));
        fold(words.sum())
    }

    #[test]
    fn the_example_of_rfc_1071_adds_up() {
        assert_eq!(
            sum(&[0x00, 0x01, 0xF2, 0x03, 0xF4, 0xF5, 0xF6, 0xF7]),
            0xDDF2
        );
    }

    #[test]
    fn the_longest_packet_of_ones_does_not_overflow() {
        let ones = vec![0xFF; 65_535];
        assert_eq!(sum(&ones), by_the_book(&ones));
    }

    proptest! {
        #[test]
        fn any_bytes_sum_as_the_book_says(bytes in proptest::collection::vec(any::<u8>(), 0..3000)) {
            prop_assert_eq!(sum(&bytes), by_the_book(&bytes));
        }
    }
}
