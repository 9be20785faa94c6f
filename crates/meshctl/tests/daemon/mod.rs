//! A daemon that answers from a script, and the binary that asks it.

#![allow(dead_code, reason = "each test binary uses a part")]

use serde_json::Value;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::thread::JoinHandle;
use tempfile::TempDir;

/// Answers one connection per scripted reply, and remembers what it was asked.
pub(crate) struct Daemon {
    pub(crate) folder: TempDir,
    asked: JoinHandle<Vec<Asked>>,
}

/// A request as it came.
pub(crate) struct Asked {
    pub(crate) line: String,
    pub(crate) body: String,
}

impl Daemon {
    pub(crate) fn answering(replies: Vec<(u16, String)>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(folder.path().join("s")).unwrap();
        let asked = std::thread::spawn(move || {
            replies
                .iter()
                .map(|(status, body)| serve(&listener, *status, body))
                .collect()
        });
        Self { folder, asked }
    }

    pub(crate) fn with(status: u16, body: &Value) -> Self {
        Self::answering(vec![(status, body.to_string())])
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.path().join("s")
    }

    pub(crate) fn run(&self, args: &[&str]) -> Output {
        meshctl(&self.socket(), args)
    }

    pub(crate) fn asked(self) -> Vec<Asked> {
        self.asked.join().unwrap()
    }
}

fn serve(listener: &UnixListener, status: u16, body: &str) -> Asked {
    let (stream, _) = listener.accept().unwrap();
    let mut reader = BufReader::new(&stream);
    let mut line = String::new();
    reader.read_line(&mut line).unwrap();
    let mut length = 0;
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).unwrap();
        let header = header.trim().to_ascii_lowercase();
        if header.is_empty() {
            break;
        }
        if let Some(value) = header.strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
    }
    let mut asked = vec![0; length];
    reader.read_exact(&mut asked).unwrap();
    write!(
        &stream,
        "HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
    .unwrap();
    Asked {
        line: line.trim().into(),
        body: String::from_utf8(asked).unwrap(),
    }
}

pub(crate) fn meshctl(socket: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_meshctl"))
        .env("MESHCTL_SOCKET", socket)
        .args(args)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

pub(crate) fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}
