//! Enrolment tokens: text is a token or an error, and a token prints and reads back to itself.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest as _, Sha256};
use wire::Token;
use wire::token::{MAX_ADDRESSES, MAX_TOKEN_LEN, TokenError};

/// `data` is text from somebody's clipboard.
pub fn text(data: &[u8]) {
    if let Ok(text) = std::str::from_utf8(data) {
        holds(text.parse());
    }
}

/// `data` is what stands in the token, with prefix and checksum made to fit.
pub fn body(data: &[u8]) {
    let text = seal(data);
    let token = text.parse();
    let refused_as = token.as_ref().err();
    assert_ne!(refused_as, Some(&TokenError::Checksum), "it does fit");
    if text.len() <= MAX_TOKEN_LEN {
        assert_ne!(refused_as, Some(&TokenError::Prefix), "it is there");
    }
    holds(token);
}

/// A token's string around `body`, written from the format's description and not from the product.
pub fn seal(body: &[u8]) -> String {
    let front = format!("meshd1.{}", URL_SAFE_NO_PAD.encode(body));
    let sum = Sha256::digest(front.as_bytes());
    let sum: String = sum.iter().take(4).map(|b| format!("{b:02x}")).collect();
    format!("{front}.{sum}")
}

fn holds(token: Result<Token, TokenError>) {
    let Ok(token) = token else { return };
    assert!((1..=MAX_ADDRESSES).contains(&token.controllers.len()));
    assert!(!token.authorities.is_empty());
    let text = token.expose();
    let again: Token = text.parse().expect("our own token is one");
    assert_eq!(again.controllers, token.controllers);
    assert_eq!(again.controller, token.controller);
    assert_eq!(again.authorities, token.authorities);
    assert_eq!(again.secret.expose(), token.secret.expose());
    assert_eq!(again.expires_unix, token.expires_unix);
    assert_eq!(*again.expose(), *text);
}
