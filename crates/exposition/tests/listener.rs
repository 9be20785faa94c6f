//! The TCP address, with clients as they come: scrapers, the curious, the slow and the many. Time is
//! the runtime's own and passes when nothing else is left to do.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use exposition::{Format, Listener, Page};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep};

exposition::metrics! {
    /// Whether it is on
    ON: Gauge = "meshd_on";
}

async fn page() -> Result<Page, String> {
    let mut page = Page::default();
    page.put(ON, true);
    Ok(page)
}

fn any() -> Listener {
    Listener::open("127.0.0.1:0".parse().unwrap(), 16)
}

/// Serves a page to everybody.
fn serving() -> SocketAddr {
    let listener = any();
    let address = listener.local_addr();
    tokio::spawn(listener.serve(page));
    address
}

async fn say(address: SocketAddr, words: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(words.as_bytes()).await.unwrap();
    stream
}

/// Everything until the other side closes; a reset ends it too.
async fn heard(mut stream: TcpStream) -> String {
    let mut reply = Vec::new();
    let _ = stream.read_to_end(&mut reply).await;
    String::from_utf8(reply).unwrap()
}

async fn ask(address: SocketAddr, line: &str) -> String {
    heard(say(address, &format!("{line} HTTP/1.1\r\nhost: x\r\n\r\n")).await).await
}

const GET: &str = "GET /metrics";

#[tokio::test(start_paused = true)]
async fn a_scraper_gets_the_page_and_the_connection_ends() {
    let reply = ask(serving(), GET).await;
    let (head, body) = reply.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    assert!(
        head.contains("content-type: text/plain; version=0.0.4; charset=utf-8\r\n"),
        "{head}"
    );
    assert!(head.contains("connection: close"), "{head}");
    assert_eq!(body, page().await.unwrap().text(Format::Plain));
}

#[tokio::test(start_paused = true)]
async fn a_scraper_that_asks_for_openmetrics_gets_it() {
    let request =
        "GET /metrics HTTP/1.1\r\nhost: x\r\naccept: application/openmetrics-text\r\n\r\n";
    let reply = heard(say(serving(), request).await).await;
    let (head, body) = reply.split_once("\r\n\r\n").unwrap();
    assert!(
        head.contains("content-type: application/openmetrics-text; version=1.0.0;"),
        "{head}"
    );
    assert_eq!(body, page().await.unwrap().text(Format::OpenMetrics));
}

#[tokio::test(start_paused = true)]
async fn nothing_else_is_served() {
    let address = serving();
    for (line, status) in [
        ("GET /", 404),
        ("GET /v1/status", 404),
        ("POST /v1/score", 404),
        ("POST /metrics", 405),
        ("PUT /metrics", 405),
        ("HEAD /metrics", 405),
        ("GET /metrics/", 404),
    ] {
        let reply = ask(address, line).await;
        assert!(
            reply.starts_with(&format!("HTTP/1.1 {status} ")),
            "{line}: {reply}"
        );
        assert!(!reply.contains("meshd_on"), "{line}: {reply}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_daemon_that_has_nothing_to_give_says_why() {
    let listener = any();
    let address = listener.local_addr();
    tokio::spawn(listener.serve(async || Err("this node is not enrolled yet".to_owned())));
    let reply = ask(address, GET).await;
    assert!(reply.starts_with("HTTP/1.1 503 "), "{reply}");
    assert!(
        reply.ends_with("\r\n\r\nthis node is not enrolled yet\n"),
        "{reply}"
    );
}

#[tokio::test(start_paused = true)]
async fn who_does_not_finish_a_request_is_dropped_in_time() {
    let address = serving();
    for words in ["", "GET /met", "GET /metrics HTTP/1.1\r\nhost: x\r\n"] {
        let began = Instant::now();
        let reply = heard(say(address, words).await).await;
        assert!(!reply.contains("meshd_on"), "{words:?}: {reply}");
        let waited = began.elapsed();
        assert!(waited <= Duration::from_secs(6), "{words:?}: {waited:?}");
        assert!(waited >= Duration::from_secs(4), "{words:?}: {waited:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_without_end_is_refused_and_not_kept() {
    let address = serving();
    let began = Instant::now();
    let long = format!("GET /metrics HTTP/1.1\r\nx: {}", "x".repeat(1 << 16));
    let mut stream = TcpStream::connect(address).await.unwrap();
    // It may be closed before all of it is written.
    let _ = stream.write_all(long.as_bytes()).await;
    let reply = heard(stream).await;
    assert!(!reply.contains("meshd_on"), "{reply}");
    assert!(began.elapsed() < Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn so_many_are_served_at_once_and_no_more_and_the_others_wait() {
    let (arrivals, mut arrived) = mpsc::unbounded_channel();
    let (open, gate) = watch::channel(false);
    let listener = any();
    let address = listener.local_addr();
    tokio::spawn(listener.serve(move || {
        arrivals.send(()).unwrap();
        let mut gate = gate.clone();
        async move {
            gate.wait_for(|open| *open).await.unwrap();
            page().await
        }
    }));
    let mut scrapers = Vec::new();
    for _ in 0..20 {
        scrapers.push(tokio::spawn(ask(address, GET)));
    }
    // All that can happen without time has happened then.
    sleep(Duration::from_secs(1)).await;
    let mut inside = 0;
    while arrived.try_recv().is_ok() {
        inside += 1;
    }
    assert_eq!(inside, 16);
    open.send(true).unwrap();
    for scraper in scrapers {
        assert!(scraper.await.unwrap().starts_with("HTTP/1.1 200 "));
    }
}

#[tokio::test(start_paused = true)]
async fn a_scrape_that_hangs_takes_no_place_for_ever() {
    let listener = any();
    let address = listener.local_addr();
    tokio::spawn(listener.serve(std::future::pending));
    let began = Instant::now();
    assert_eq!(ask(address, GET).await, "");
    assert!(began.elapsed() <= Duration::from_secs(11));
}

#[tokio::test(start_paused = true)]
async fn idle_connections_keep_no_scraper_out() {
    let address = serving();
    let mut idle = Vec::new();
    for _ in 0..100 {
        idle.push(TcpStream::connect(address).await.unwrap());
    }
    let began = Instant::now();
    assert!(ask(address, GET).await.starts_with("HTTP/1.1 200 "));
    assert!(began.elapsed() < Duration::from_secs(1));
    // Those that came first gave way.
    assert_eq!(heard(idle.swap_remove(0)).await, "");
    assert!(began.elapsed() < Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn an_address_that_is_taken_is_had_as_soon_as_it_is_free() {
    let first = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = first.local_addr().unwrap();
    let listener = Listener::open(address, 16);
    tokio::spawn(listener.serve(page));
    sleep(Duration::from_secs(60)).await;
    drop(first);
    sleep(Duration::from_secs(2)).await;
    assert!(ask(address, GET).await.starts_with("HTTP/1.1 200 "));
}
