//! The enrolment token: everything that a new node must know, in one string.
//!
//! `meshd1.` then base64url (no padding) of postcard, then `.` and the first 8 hex digits of the
//! SHA-256 of what stands before it, so that a cut or mistyped token is told apart from a used one.

use crate::host_port::{HostPort, HostPortError};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use keys::{AuthorityId, ControllerId, TokenSecret};
use serde::{Deserialize, Serialize};
use sha2::Digest as _;
use std::fmt;
use std::str::FromStr;
use zeroize::Zeroizing;

/// Longest token that is read, in bytes.
pub const MAX_TOKEN_LEN: usize = 4096;
/// Most controller addresses in a token.
pub const MAX_ADDRESSES: usize = 8;

const PREFIX: &str = "meshd1.";

/// An enrolment token. `Debug` hides the secret; printing it takes [`Token::expose`].
pub struct Token {
    /// Where the controller listens: `host:port`, tried in order.
    pub controllers: Vec<String>,
    /// The controller's connection key, to pin.
    pub controller: ControllerId,
    /// The keys whose updates the node shall believe.
    pub authorities: Vec<AuthorityId>,
    /// Admits one enrolment.
    pub secret: TokenSecret,
    /// When the token ends, in seconds since 1970.
    pub expires_unix: u64,
}

/// Why a string is not a token.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum TokenError {
    /// It does not start like one.
    #[error("not a meshd token: it should start with `{PREFIX}`")]
    Prefix,
    /// Its checksum does not fit: cut or mistyped.
    #[error("the token is damaged: copy it again, whole")]
    Checksum,
    /// It has the right checksum, but a form that this version does not read.
    #[error("the token is of a form that this version does not read")]
    Form,
    /// One of its addresses could never be reached.
    #[error("the token has an address that cannot be used, `{0}`: {1}")]
    Address(String, HostPortError),
}

#[derive(Serialize, Deserialize)]
struct Body {
    controllers: Vec<String>,
    controller: ControllerId,
    authorities: Vec<AuthorityId>,
    secret: [u8; 32],
    expires_unix: u64,
}

impl Token {
    /// The token as its string. Whoever reads it can enrol one node.
    pub fn expose(&self) -> Zeroizing<String> {
        let body = Body {
            controllers: self.controllers.clone(),
            controller: self.controller,
            authorities: self.authorities.clone(),
            secret: *self.secret.expose(),
            expires_unix: self.expires_unix,
        };
        let bytes = Zeroizing::new(postcard::to_stdvec(&body).expect("a token always encodes"));
        let mut text = Zeroizing::new(format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(&*bytes)));
        let sum = checksum(&text);
        text.push('.');
        text.push_str(&sum);
        text
    }
}

impl FromStr for Token {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, TokenError> {
        let text = text.trim();
        if !text.starts_with(PREFIX) || text.len() > MAX_TOKEN_LEN {
            return Err(TokenError::Prefix);
        }
        let (front, sum) = text.rsplit_once('.').ok_or(TokenError::Checksum)?;
        if checksum(front) != sum {
            return Err(TokenError::Checksum);
        }
        let body = front.strip_prefix(PREFIX).ok_or(TokenError::Checksum)?;
        let bytes = Zeroizing::new(URL_SAFE_NO_PAD.decode(body).map_err(|_| TokenError::Form)?);
        let Ok((body, [])) = postcard::take_from_bytes::<Body>(&bytes) else {
            return Err(TokenError::Form);
        };
        let fits =
            (1..=MAX_ADDRESSES).contains(&body.controllers.len()) && !body.authorities.is_empty();
        if !fits {
            return Err(TokenError::Form);
        }
        for address in &body.controllers {
            let read = address.parse::<HostPort>();
            read.map_err(|error| TokenError::Address(address.clone(), error))?;
        }
        Ok(Self {
            controllers: body.controllers,
            controller: body.controller,
            authorities: body.authorities,
            secret: TokenSecret::from_bytes(body.secret),
            expires_unix: body.expires_unix,
        })
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token({:?}, {})", self.controllers, self.controller)
    }
}

fn checksum(text: &str) -> String {
    sha2::Sha256::digest(text.as_bytes())
        .iter()
        .take(4)
        .map(|b| format!("{b:02x}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn token() -> Token {
        Token {
            controllers: vec!["192.0.2.1:7443".into()],
            controller: ControllerId([1; 32]),
            authorities: vec![AuthorityId([2; 32])],
            secret: TokenSecret::from_bytes([3; 32]),
            expires_unix: 4,
        }
    }

    #[test]
    fn a_token_reads_back() {
        let read: Token = token().expose().parse().unwrap();
        assert_eq!(read.controllers, token().controllers);
        assert_eq!(read.secret.expose(), &[3; 32]);
        assert!(!format!("{read:?}").contains("0303"));
    }

    #[test]
    fn a_cut_or_mistyped_token_is_called_damaged() {
        let text = token().expose();
        assert_eq!(
            text[..text.len() - 1].parse::<Token>().unwrap_err(),
            TokenError::Checksum
        );
        assert_eq!("hello".parse::<Token>().unwrap_err(), TokenError::Prefix);
    }

    #[test]
    fn a_token_with_an_address_that_nobody_can_dial_is_refused() {
        let token = Token {
            controllers: vec!["192.0.2.1:7443".into(), "http://x:1".into()],
            ..token()
        };
        let error = token.expose().parse::<Token>().unwrap_err();
        assert!(error.to_string().contains("`http://x:1`"), "{error}");
    }

    proptest! {
        #[test]
        fn any_text_is_a_token_or_an_error(text: String) {
            let _ = text.parse::<Token>();
            let front = format!("{PREFIX}{text}");
            let _ = format!("{front}.{}", checksum(&front)).parse::<Token>();
        }
    }
}
