//! The server over a real socket, with a role that answers one question.

use crate::{Caller, Desk, Question, Refused, Words, form, router, serve};
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use exposition::Page;
use serde::{Deserialize, Serialize};
use std::os::unix::fs::MetadataExt as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, oneshot};

struct Scrape(oneshot::Sender<Result<Page, Refused>>);

impl Question for Scrape {
    fn metrics(answer: oneshot::Sender<Result<Page, Refused>>) -> Self {
        Self(answer)
    }
}

#[derive(Default, Serialize, Deserialize)]
struct Form {
    reason: Option<String>,
}

const WORDS: Words = Words {
    stopping: "the role is stopping",
    no_such_path: "no such path here",
    hint: "there is /form",
};

/// Serves a role; its questions come out of the receiver.
fn role(directory: &std::path::Path) -> mpsc::Receiver<Scrape> {
    let (questions, asked) = mpsc::channel(1);
    let routes = Router::new()
        .route("/form", post(async |body| form::<Form>(body).map(Json)))
        .route(
            "/caller",
            get(async |Extension(caller): Extension<Caller>| format!("{:?}", caller.uid)),
        )
        .route("/status", get(async || "well"));
    let router = router(routes, Desk::new(questions, WORDS));
    let socket = UnixListener::bind(directory.join("s")).unwrap();
    tokio::spawn(serve(socket, router, 4));
    asked
}

/// Sends a request as it is; the answer's status and the rest.
async fn say(directory: &std::path::Path, head: &str, body: &str) -> (u16, String) {
    let mut stream = UnixStream::connect(directory.join("s")).await.unwrap();
    let len = body.len();
    let request =
        format!("{head} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {len}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    // A server that refuses early may close before it has read everything.
    let _ = stream.write_all(body.as_bytes()).await;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    let answer = String::from_utf8(answer).unwrap();
    let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
    (status, answer)
}

#[tokio::test]
async fn a_path_that_does_not_exist_is_refused_with_what_there_is() {
    let directory = tempfile::tempdir().unwrap();
    let _asked = role(directory.path());
    let (status, answer) = say(directory.path(), "GET /nothing", "").await;
    assert_eq!(status, 404);
    assert!(answer.contains(WORDS.no_such_path) && answer.contains(WORDS.hint));
    let (status, answer) = say(directory.path(), "GET /form", "").await;
    assert_eq!(status, 405);
    assert!(answer.contains(WORDS.hint), "{answer}");
}

#[tokio::test]
async fn a_request_says_which_user_of_this_machine_made_it() {
    let directory = tempfile::tempdir().unwrap();
    let _asked = role(directory.path());
    let (status, answer) = say(directory.path(), "GET /caller", "").await;
    let owner = std::fs::metadata(directory.path()).unwrap().uid();
    assert_eq!(status, 200);
    assert!(answer.ends_with(&format!("Some({owner})")), "{answer}");
}

#[tokio::test]
async fn a_form_is_an_object_of_a_bounded_length_or_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let _asked = role(directory.path());
    let filled = say(directory.path(), "POST /form", r#"{"reason":"because"}"#).await;
    assert_eq!(filled.0, 200);
    assert!(filled.1.contains("because"));
    assert_eq!(say(directory.path(), "POST /form", "").await.0, 200);
    let (status, answer) = say(directory.path(), "POST /form", "reason").await;
    assert_eq!(status, 400);
    assert!(answer.contains("JSON object"), "{answer}");
    let long = format!(r#"{{"reason":"{}"}}"#, "x".repeat(64 << 10));
    assert_eq!(say(directory.path(), "POST /form", &long).await.0, 413);
}

#[tokio::test]
async fn metrics_are_asked_of_the_role_and_a_role_that_stops_says_so() {
    let directory = tempfile::tempdir().unwrap();
    let mut asked = role(directory.path());
    let scraped = tokio::spawn({
        let directory = directory.path().to_owned();
        async move { say(&directory, "GET /metrics", "").await }
    });
    let Scrape(answer) = asked.recv().await.unwrap();
    answer.send(Ok(Page::default())).ok().unwrap();
    assert_eq!(scraped.await.unwrap().0, 200);
    drop(asked);
    let (status, answer) = say(directory.path(), "GET /metrics", "").await;
    assert_eq!(status, 503);
    assert!(answer.contains(WORDS.stopping), "{answer}");
}

#[tokio::test]
async fn idle_connections_give_way_to_those_who_ask() {
    let directory = tempfile::tempdir().unwrap();
    let _asked = role(directory.path());
    let mut idle = Vec::new();
    for _ in 0..100 {
        idle.push(
            UnixStream::connect(directory.path().join("s"))
                .await
                .unwrap(),
        );
    }
    assert_eq!(say(directory.path(), "GET /status", "").await.0, 200);
    let mut nothing = Vec::new();
    idle.swap_remove(0).read_to_end(&mut nothing).await.unwrap();
    assert_eq!(nothing, b"", "those that came first gave way");
}

#[tokio::test(start_paused = true)]
async fn one_that_says_nothing_or_half_of_a_request_is_dropped_in_time() {
    let directory = tempfile::tempdir().unwrap();
    let _asked = role(directory.path());
    for words in [
        "",
        "GET /sta",
        "POST /form HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\n{",
        "GET /status HTTP/1.1\r\nhost: x\r\n\r\n",
    ] {
        let mut stream = UnixStream::connect(directory.path().join("s"))
            .await
            .unwrap();
        stream.write_all(words.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        // The runtime's own time, which passes when nothing else is left to do.
        let ended = tokio::time::timeout(
            std::time::Duration::from_secs(20),
            stream.read_to_end(&mut answer),
        );
        assert!(ended.await.is_ok(), "{words:?}");
    }
}
