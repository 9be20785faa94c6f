//! Paths to answers. Every path is for reading: another method than `GET` is refused before the path is looked at,
//! and a body is never read.

use crate::assets;
use crate::board::Board;
use crate::book::Book;
use crate::host;
use crate::source::{Refusal, Source};
use crate::token::{Access, Guard, Token};
use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{
    ALLOW, AUTHORIZATION, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, HOST,
    HeaderName, HeaderValue, IF_NONE_MATCH, REFERRER_POLICY, WWW_AUTHENTICATE,
    X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use hyper::http::request::Parts;
use hyper::{Method, Response, StatusCode};
use serde::Serialize;
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::Arc;
use wire::{NodeName, SegmentName};

/// The part that answers requests.
#[derive(Debug)]
pub(crate) struct Router<S> {
    guard: Guard,
    board: Arc<Board>,
    source: S,
    book: Book<S>,
}

type Answer = Result<Response<Full<Bytes>>, Refusal>;

impl<S: Source> Router<S> {
    pub(crate) fn new(token: Option<Token>, board: Arc<Board>, source: S) -> Self {
        Self {
            guard: Guard::new(token),
            board,
            book: Book::new(source.clone()),
            source,
        }
    }

    /// The answer to a request.
    pub(crate) async fn answer(&self, request: &Parts) -> Response<Full<Bytes>> {
        let answer = self.find(request).await;
        let mut answer = answer.unwrap_or_else(|refusal| refused(&refusal));
        let headers = answer.headers_mut();
        for (name, value) in HEADERS {
            headers.insert(name, HeaderValue::from_static(value));
        }
        answer
    }

    async fn find(&self, request: &Parts) -> Answer {
        if request.method != Method::GET {
            let hint = "the page can only be read; `meshctl` has the orders";
            return Err(Refusal::new(405, "only GET is served here", hint));
        }
        if !self.guard.has_token() && !asks_by_address(request) {
            let hint = "ask by an address or as `localhost`; under another name the page needs `page_token_file`";
            return Err(Refusal::new(421, "the page has no such name", hint));
        }
        let path = request.uri.path();
        if let Some(asset) = assets::ALL.iter().find(|it| it.path == path) {
            return Ok(tagged(request, assets::TAG, asset.kind, || {
                Bytes::from_static(asset.body)
            }));
        }
        if !path.starts_with("/v1/") {
            return Err(no_such_path());
        }
        self.admit(request)?;
        let query = Query(request.uri.query().unwrap_or_default());
        let segments: Vec<&str> = path.split('/').skip(2).collect();
        match segments.as_slice() {
            ["mesh"] => self.mesh(request).await,
            ["events"] => self.events(&query).await,
            ["history"] => self.history(&query).await,
            ["nodes", name, "explain"] => {
                let segment = query.one("segment").map(segment).transpose()?;
                json(&self.source.explain(node(name)?, segment).await?)
            }
            ["nodes", name, "pairs"] => {
                let sheet = self.board.sheet().await.ok_or_else(starting)?;
                let name = node(name)?;
                let hint = "the list of nodes has all that are enrolled, with their segments";
                let asked = query.one("segment").map(segment).transpose()?;
                let of = asked.as_ref().or_else(|| sheet.home(&name));
                let around = of.and_then(|of| sheet.around(&name, of));
                json(&around.ok_or_else(|| Refusal::new(404, format!("no node {name}"), hint))?)
            }
            _ => Err(no_such_path()),
        }
    }

    fn admit(&self, request: &Parts) -> Result<(), Refusal> {
        let authorization = request.headers.get(AUTHORIZATION);
        match self.guard.admit(authorization.map(HeaderValue::as_bytes)) {
            Access::Granted => Ok(()),
            Access::Denied => {
                let hint = "the token is in the controller's `page_token_file`";
                Err(Refusal::new(401, "a token is needed", hint))
            }
            Access::TooMany => {
                let hint = "wait a minute; the right token is always taken";
                Err(Refusal::new(429, "too many wrong tokens", hint))
            }
        }
    }

    async fn mesh(&self, request: &Parts) -> Answer {
        let sheet = self.board.sheet().await.ok_or_else(starting)?;
        Ok(tagged(request, &sheet.tag, JSON, || sheet.body.clone()))
    }

    async fn events(&self, query: &Query<'_>) -> Answer {
        let of = query.one("node").map(node).transpose()?;
        let limit = query.number("limit")?.unwrap_or(100).min(MAX_EVENTS);
        let pages = self.book.open().await?;
        json(&json!({ "events": pages.events(of.as_ref(), limit) }))
    }

    async fn history(&self, query: &Query<'_>) -> Answer {
        let sheet = self.board.sheet().await.ok_or_else(starting)?;
        let names: Vec<&str> = query.all("node").take(MAX_HISTORIES + 1).collect();
        if names.len() > MAX_HISTORIES {
            let hint = "ask again for the others";
            let error = format!("more than {MAX_HISTORIES} nodes at once");
            return Err(Refusal::new(400, error, hint));
        }
        let names = names.into_iter().map(node);
        let names = names.collect::<Result<Vec<NodeName>, _>>()?;
        let most = query.number("points")?.unwrap_or(60).min(MAX_POINTS);
        let of = query.one("segment").map(segment).transpose()?;
        let found = match &of {
            Some(name) => sheet.segments.get(name),
            None => sheet.segments.values().next(),
        };
        let (number, threshold) = *found.ok_or_else(|| {
            let hint = "the status names the segments";
            Refusal::new(404, "no such segment", hint)
        })?;
        let pages = self.book.open().await?;
        let histories = names.iter();
        let histories = histories.map(|name| (name, pages.history(number, name, most)));
        json(&json!({
            "thresholds": pages.thresholds(number, threshold),
            "nodes": histories.collect::<BTreeMap<_, _>>(),
        }))
    }
}

/// The parameters of a request. Names of nodes and segments need no escapes, so that none are undone: an escaped name
/// is no name.
struct Query<'r>(&'r str);

impl<'r> Query<'r> {
    fn all<'s>(&'s self, name: &'s str) -> impl Iterator<Item = &'r str> + 's {
        let pairs = self.0.split('&').filter_map(|pair| pair.split_once('='));
        pairs.filter(move |(key, _)| *key == name).map(|(_, it)| it)
    }

    fn one(&self, name: &str) -> Option<&'r str> {
        self.all(name).next()
    }

    fn number(&self, name: &str) -> Result<Option<usize>, Refusal> {
        let parsed = self.one(name).map(str::parse).transpose();
        parsed.map_err(|_| {
            let hint = format!("as in ?{name}=100");
            Refusal::new(400, format!("`{name}` is not a number"), hint)
        })
    }
}

fn node(text: &str) -> Result<NodeName, Refusal> {
    NodeName::try_from(text.to_owned()).map_err(|error| {
        let hint = "the list of nodes has all that are enrolled";
        Refusal::new(400, error.to_string(), hint)
    })
}

fn segment(text: &str) -> Result<SegmentName, Refusal> {
    SegmentName::try_from(text.to_owned()).map_err(|error| {
        let hint = "the status names the segments";
        Refusal::new(400, error.to_string(), hint)
    })
}

fn asks_by_address(request: &Parts) -> bool {
    let host = request.headers.get(HOST);
    let host = host.and_then(|host| host.to_str().ok());
    // An absolute URI goes before the header.
    let host = request.uri.authority().map_or(host, |it| Some(it.as_str()));
    host.is_some_and(host::is_own)
}

fn no_such_path() -> Refusal {
    Refusal::new(404, "no such path", "the page is at /")
}

fn starting() -> Refusal {
    Refusal::new(503, "the controller is starting", "try again in a second")
}

fn json(of: &impl Serialize) -> Answer {
    let body = serde_json::to_vec(of).map_err(|error| {
        let hint = "this is a fault of the controller";
        Refusal::new(500, format!("the answer cannot be written: {error}"), hint)
    })?;
    Ok(whole(StatusCode::OK, JSON, body.into()))
}

/// The body with its tag, or the word that the reader has it already.
fn tagged(
    request: &Parts,
    tag: &str,
    kind: &'static str,
    body: impl FnOnce() -> Bytes,
) -> Response<Full<Bytes>> {
    let has = request.headers.get(IF_NONE_MATCH);
    let mut response = if has.is_some_and(|has| has.as_bytes() == tag.as_bytes()) {
        whole(StatusCode::NOT_MODIFIED, kind, Bytes::new())
    } else {
        whole(StatusCode::OK, kind, body())
    };
    if let Ok(tag) = HeaderValue::from_str(tag) {
        response.headers_mut().insert(ETAG, tag);
    }
    response
}

fn refused(refusal: &Refusal) -> Response<Full<Bytes>> {
    let status = StatusCode::from_u16(refusal.status);
    let status = status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let body = serde_json::to_vec(&refusal.error).unwrap_or_default();
    let mut response = whole(status, JSON, body.into());
    let headers = response.headers_mut();
    match status {
        StatusCode::METHOD_NOT_ALLOWED => {
            headers.insert(ALLOW, HeaderValue::from_static("GET"));
        }
        StatusCode::UNAUTHORIZED => {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        _ => {}
    }
    response
}

fn whole(status: StatusCode, kind: &'static str, body: Bytes) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

const JSON: &str = "application/json";
/// On every answer: a browser runs nothing but the page's own files, asks nobody else, shows the page in no frame,
/// tells nobody where it has been, and keeps no data.
const HEADERS: [(HeaderName, &str); 7] = [
    (
        CONTENT_SECURITY_POLICY,
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (X_FRAME_OPTIONS, "DENY"),
    (REFERRER_POLICY, "no-referrer"),
    (CACHE_CONTROL, "no-cache"),
    (
        HeaderName::from_static("cross-origin-resource-policy"),
        "same-origin",
    ),
    (
        HeaderName::from_static("cross-origin-opener-policy"),
        "same-origin",
    ),
];
/// Events in one answer.
const MAX_EVENTS: usize = 1_000;
/// Nodes whose histories are in one answer.
const MAX_HISTORIES: usize = 50;
/// Points of one node in an answer.
const MAX_POINTS: usize = 240;
