//! The bearer token of the page. Only its hash is kept; wrong ones are counted, so that guesses can neither fill the
//! log nor go on at the speed of the network.

use sha2::{Digest as _, Sha256};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;
use zeroize::Zeroizing;

/// Stands for the token. Those that were cloned from one change together.
#[derive(Clone)]
pub struct Token(Arc<Mutex<[u8; 32]>>);

impl PartialEq for Token {
    fn eq(&self, other: &Self) -> bool {
        self.hash() == other.hash()
    }
}

impl Eq for Token {}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

impl Token {
    /// The token in a file's text, which may end with a line's end.
    ///
    /// # Errors
    /// When it is shorter than [`MIN_LEN`], longer than [`MAX_LEN`], or has characters that a header cannot have.
    pub fn read(text: &Zeroizing<String>) -> Result<Self, String> {
        let token = text.trim_end_matches(['\r', '\n']);
        if !(MIN_LEN..=MAX_LEN).contains(&token.len()) {
            let len = token.len();
            return Err(format!(
                "the token has {len} bytes, and not {MIN_LEN} to {MAX_LEN}: make one with \
                 `head -c 32 /dev/urandom | base64`"
            ));
        }
        if !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(
                "the token is not one line of visible ASCII without blanks: make one with \
                        `head -c 32 /dev/urandom | base64`"
                    .to_owned(),
            );
        }
        Ok(Self(Arc::new(Mutex::new(hash(token.as_bytes())))))
    }

    /// From now on the other one is the token, and this one is none.
    pub fn replace(&self, other: &Self) {
        let other = other.hash();
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = other;
    }

    fn hash(&self) -> [u8; 32] {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether this is it. Takes as long for one guess as for another: hashes are compared, and all of them.
    fn is(&self, guess: &[u8]) -> bool {
        let guess = hash(guess);
        let own = self.hash();
        let both = own.iter().zip(guess);
        let differing = both.fold(0, |sum, (a, b)| sum | (a ^ b));
        std::hint::black_box(differing) == 0
    }
}

fn hash(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

/// The fate of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    /// It is answered.
    Granted,
    /// It has no token, or a wrong one.
    Denied,
    /// The same, and there were too many wrong ones lately.
    TooMany,
}

/// The token, and the wrong ones of late.
#[derive(Debug)]
pub(crate) struct Guard {
    token: Option<Token>,
    wrong: Mutex<Wrong>,
}

#[derive(Debug, Default)]
struct Wrong {
    since: Option<Instant>,
    count: u32,
}

impl Guard {
    pub(crate) fn new(token: Option<Token>) -> Self {
        Self {
            token,
            wrong: Mutex::default(),
        }
    }

    pub(crate) fn has_token(&self) -> bool {
        self.token.is_some()
    }

    /// Holds the value of a request's `Authorization` against the token. The right token is never refused, however
    /// many wrong ones there were: nobody can lock its owner out.
    pub(crate) fn admit(&self, authorization: Option<&[u8]>) -> Access {
        let Some(token) = &self.token else {
            return Access::Granted;
        };
        let Some(value) = authorization else {
            // A browser that has none yet guesses nothing.
            return Access::Denied;
        };
        match bearer(value) {
            Some(guess) if token.is(guess) => Access::Granted,
            _ => self.count_wrong(),
        }
    }

    fn count_wrong(&self) -> Access {
        let now = Instant::now();
        let mut wrong = self.wrong.lock().unwrap_or_else(PoisonError::into_inner);
        if wrong.since.is_none_or(|since| since + WINDOW <= now) {
            *wrong = Wrong {
                since: Some(now),
                count: 0,
            };
        }
        wrong.count = wrong.count.saturating_add(1);
        match wrong.count {
            1..=MAX_WRONG => Access::Denied,
            count => {
                if count == MAX_WRONG + 1 {
                    tracing::warn!("many wrong tokens for the page: somebody may be guessing");
                }
                Access::TooMany
            }
        }
    }
}

/// The token in `Bearer TOKEN`.
fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = value.split_at_checked(SCHEME.len())?;
    scheme.eq_ignore_ascii_case(SCHEME).then_some(token)
}

const SCHEME: &[u8] = b"Bearer ";
/// Bytes of a token: 24 in base64 are 18 at random.
pub const MIN_LEN: usize = 24;
/// Bytes of a token, so that it fits a header.
pub const MAX_LEN: usize = 256;
/// Wrong tokens that are answered as such, …
const MAX_WRONG: u32 = 20;
/// … in this time.
const WINDOW: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "c2l4dGVlbiBieXRlcyBvciBzbw==";

    fn token() -> Token {
        Token::read(&Zeroizing::new(format!("{TEXT}\n"))).unwrap()
    }

    #[test]
    fn a_token_that_is_replaced_opens_nothing_any_more() {
        let (own, other) = (token(), "another-token-of-some-length");
        let guard = Guard::new(Some(own.clone()));
        own.replace(&Token::read(&Zeroizing::new(other.to_owned())).unwrap());
        let admit = |text: &str| guard.admit(Some(format!("Bearer {text}").as_bytes()));
        assert_eq!(admit(TEXT), Access::Denied);
        assert_eq!(admit(other), Access::Granted);
    }

    #[test]
    fn a_token_is_one_line_of_some_length_and_is_not_shown() {
        for (bad, why) in [
            ("", "0 bytes"),
            ("short", "5 bytes"),
            (&"x".repeat(257), "257 bytes"),
            ("one two three four five six", "visible"),
            ("one-line-is-here-and\nanother-line-is-there", "visible"),
        ] {
            let refused = Token::read(&Zeroizing::new(bad.to_owned())).unwrap_err();
            assert!(refused.contains(why), "{refused}");
        }
        assert_eq!(format!("{:?}", token()), "Token(..)");
    }

    #[tokio::test(start_paused = true)]
    async fn wrong_tokens_are_counted_and_never_lock_out_the_right_one() {
        let guard = Guard::new(Some(token()));
        let right = format!("Bearer {TEXT}");
        assert_eq!(guard.admit(None), Access::Denied);
        for wrong in ["", "Bearer ", "Basic x", TEXT, &right[..right.len() - 1]] {
            assert_eq!(
                guard.admit(Some(wrong.as_bytes())),
                Access::Denied,
                "{wrong}"
            );
        }
        for _ in 5..MAX_WRONG {
            assert_eq!(guard.admit(Some(b"Bearer no")), Access::Denied);
        }
        assert_eq!(guard.admit(Some(b"Bearer no")), Access::TooMany);
        assert_eq!(guard.admit(Some(right.as_bytes())), Access::Granted);
        tokio::time::advance(WINDOW).await;
        assert_eq!(guard.admit(Some(b"Bearer no")), Access::Denied);
        assert_eq!(Guard::new(None).admit(None), Access::Granted);
    }
}
