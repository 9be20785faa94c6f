//! A block of lines between two markers in a file that is somebody else's. The bytes outside are never changed.

/// Why a file cannot have a block.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BlockError {
    /// A marker stands alone.
    #[error(
        "line {0} begins or ends a block of meshd's without its other end: remove the line, and what is meshd's beside it"
    )]
    Unmatched(usize),
}

/// The file `text` with `lines` in the block of `tag`, which comes to the end where there was none; without the block
/// where there are no lines.
///
/// # Errors
/// [`BlockError`], with the number of the line.
pub fn with_block(text: &[u8], tag: &str, lines: &str) -> Result<Vec<u8>, BlockError> {
    let (begin, end) = (format!("# BEGIN meshd {tag}"), format!("# END meshd {tag}"));
    let block = if lines.is_empty() {
        String::new()
    } else {
        format!("{begin} (written by meshd; changes here are lost)\n{lines}{end}\n")
    };
    let is = |line: &[u8], marker: &str| {
        let rest = line.strip_prefix(marker.as_bytes());
        rest.is_some_and(|rest| rest.first().is_none_or(u8::is_ascii_whitespace))
    };
    let mut made = Vec::with_capacity(text.len() + block.len());
    let mut block = Some(block);
    let mut began = None;
    for (number, line) in text.split_inclusive(|byte| *byte == b'\n').enumerate() {
        let number = number + 1;
        match began {
            None if is(line, &end) => return Err(BlockError::Unmatched(number)),
            None if is(line, &begin) => began = Some(number),
            None => made.extend_from_slice(line),
            Some(_) if is(line, &begin) => return Err(BlockError::Unmatched(number)),
            Some(_) if is(line, &end) => {
                began = None;
                // A second block of the same tag is an old one.
                made.extend(block.take().unwrap_or_default().into_bytes());
            }
            Some(_) => {}
        }
    }
    if let Some(number) = began {
        return Err(BlockError::Unmatched(number));
    }
    if let Some(block) = block.filter(|it| !it.is_empty()) {
        if made.last().is_some_and(|last| *last != b'\n') {
            made.push(b'\n');
        }
        made.extend_from_slice(block.as_bytes());
    }
    Ok(made)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(text: &str, tag: &str, lines: &str) -> String {
        String::from_utf8(with_block(text.as_bytes(), tag, lines).unwrap()).unwrap()
    }

    #[test]
    fn a_block_comes_changes_and_goes_and_nothing_else_does() {
        let own = "127.0.0.1 localhost\n# a comment\n";
        let one = put(own, "meshd0", "10.76.0.2 node-b\n");
        assert_eq!(
            one,
            format!(
                "{own}# BEGIN meshd meshd0 (written by meshd; changes here are lost)\n10.76.0.2 node-b\n\
                 # END meshd meshd0\n"
            )
        );
        let later = format!("{one}::1 localhost");
        let two = put(&later, "meshd0", "10.76.0.3 node-c\n");
        assert_eq!(two, later.replace("10.76.0.2 node-b", "10.76.0.3 node-c"));
        assert_eq!(put(&two, "meshd0", ""), format!("{own}::1 localhost"));
        assert_eq!(put(own, "meshd0", ""), own);
        assert_eq!(put("x", "m", "y\n").lines().next(), Some("x"));
    }

    #[test]
    fn another_ones_block_and_bytes_that_are_no_text_stay() {
        let other = put("", "meshd01", "10.0.0.1 x\n");
        let both = put(&other, "meshd0", "10.0.0.2 y\n");
        assert!(both.starts_with(&other));
        assert_eq!(put(&both, "meshd0", ""), other);
        let bytes = with_block(b"\xff\n", "a", "b\n").unwrap();
        assert_eq!(with_block(&bytes, "a", "").unwrap(), b"\xff\n");
    }

    #[test]
    fn a_marker_without_the_other_one_is_an_error_with_its_line() {
        let whole = put("x\n", "a", "b\n");
        let lines: Vec<&str> = whole.lines().collect();
        let no_end = lines[..3].join("\n");
        let error = |text: &str| with_block(text.as_bytes(), "a", "c\n").unwrap_err();
        assert_eq!(error(&no_end), BlockError::Unmatched(2));
        assert_eq!(error(lines[3]), BlockError::Unmatched(1));
        let twice = format!("{no_end}\n{whole}");
        assert_eq!(error(&twice), BlockError::Unmatched(5));
    }
}
