//! A refusal: its HTTP status, the words, and the way out.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use std::fmt;
use wire::admin::ApiError;

/// A refusal with its HTTP status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// The HTTP status, 400 to 599.
    pub status: u16,
    /// The words.
    pub error: ApiError,
}

impl Refused {
    /// A refusal with a way out.
    pub fn new(status: u16, error: impl Into<String>, hint: impl Into<String>) -> Self {
        let error = ApiError {
            error: error.into(),
            hint: Some(hint.into()),
        };
        Self { status, error }
    }

    /// A refusal that says all there is to say.
    pub fn plain(status: u16, error: impl Into<String>) -> Self {
        let error = ApiError {
            error: error.into(),
            hint: None,
        };
        Self { status, error }
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ApiError { error, hint } = &self.error;
        match hint {
            Some(hint) => write!(f, "{error}; {hint}"),
            None => f.write_str(error),
        }
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status);
        let status = status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        (status, Json(self.error)).into_response()
    }
}
