//! Questions to the daemons of a mesh, and orders: all of them through `meshctl`, as an operator's.

use super::mesh::{CONTROLLER, Mesh, name};
use super::programs::program;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;
use std::process::{Command, Output};
use wire::admin::{
    ControllerStatus, EpochChange, EventInfo, EventList, Explanation, NodeDaemonStatus, NodeStatus,
    Status,
};

impl Mesh {
    /// `meshctl --socket … ARGUMENTS` to the daemon of `host`.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn meshctl(&self, host: &str, arguments: &[&str]) -> Output {
        let mut command = Command::new(program("meshctl"));
        command.arg("--socket").arg(self.socket(host));
        let output = command.args(arguments).output();
        output.expect("meshctl is there and runs")
    }

    /// `meshctl --json ARGUMENTS`, or nothing if that fails or makes no sense.
    #[must_use]
    pub fn try_ask<T: serde::de::DeserializeOwned>(
        &self,
        host: &str,
        arguments: &[&str],
    ) -> Option<T> {
        let output = self.meshctl(host, &[&["--json"], arguments].concat());
        serde_json::from_slice(&output.stdout).ok()
    }

    /// `meshctl --json ARGUMENTS`, read as the form that it has to be.
    ///
    /// # Panics
    /// When it is refused or has another form.
    pub fn ask<T: serde::de::DeserializeOwned>(&self, host: &str, arguments: &[&str]) -> T {
        let output = self.meshctl(host, &[&["--json"], arguments].concat());
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| {
            let said = String::from_utf8_lossy(&output.stderr);
            panic!("{host}: meshctl {}: {error}; {said}", arguments.join(" "))
        })
    }

    /// The controller's status.
    #[must_use]
    pub fn status(&self) -> ControllerStatus {
        match self.ask(CONTROLLER, &["status"]) {
            Status::Controller(status) => *status,
            Status::Node(_) => panic!("a node answers on the controller's socket"),
        }
    }

    /// The controller's status, if it answers.
    #[must_use]
    pub fn try_status(&self) -> Option<ControllerStatus> {
        match self.try_ask(CONTROLLER, &["status"])? {
            Status::Controller(status) => Some(*status),
            Status::Node(_) => None,
        }
    }

    /// A node as the controller sees it.
    ///
    /// # Panics
    /// When the controller does not know it.
    #[must_use]
    pub fn node(&self, node: &str) -> NodeStatus {
        let mut status = self.status();
        let found = status.nodes.remove(&name(node));
        found.unwrap_or_else(|| panic!("the controller knows no {node}"))
    }

    /// A node as it sees itself.
    ///
    /// # Panics
    /// When it does not answer.
    #[must_use]
    pub fn node_status(&self, node: &str) -> NodeDaemonStatus {
        self.try_node_status(node)
            .unwrap_or_else(|| panic!("{node} does not answer"))
    }

    /// A node as it sees itself, if it answers and is enrolled.
    #[must_use]
    pub fn try_node_status(&self, node: &str) -> Option<NodeDaemonStatus> {
        match self.try_ask(node, &["status"])? {
            Status::Node(status) => Some(*status).filter(|it| it.name.is_some()),
            Status::Controller(_) => None,
        }
    }

    /// Number of the epoch in force.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.status().epoch.id
    }

    /// Changes the mean of a node's mock emitter.
    pub fn set_score(&self, node: &str, mean: f64) {
        let _: serde_json::Value = self.ask(node, &["score", "set", &mean.to_string()]);
    }

    /// Begins the next epoch before its time.
    pub fn rotate(&self) -> EpochChange {
        self.ask(CONTROLLER, &["epoch", "rotate"])
    }

    /// Begins the next epoch at once.
    pub fn rotate_now(&self) -> EpochChange {
        self.ask(CONTROLLER, &["epoch", "rotate", "--now"])
    }

    /// Evicts a node.
    pub fn evict(&self, node: &str) -> EpochChange {
        self.ask(CONTROLLER, &["node", "evict", node])
    }

    /// Readmits a node.
    pub fn readmit(&self, node: &str) -> NodeStatus {
        self.ask(CONTROLLER, &["node", "readmit", node])
    }

    /// Why a node is where it is.
    #[must_use]
    pub fn explain(&self, node: &str) -> Explanation {
        self.ask(CONTROLLER, &["explain", node])
    }

    /// The whole event log.
    #[must_use]
    pub fn events(&self) -> Vec<EventInfo> {
        let mut all: Vec<EventInfo> = Vec::new();
        loop {
            let after = all.last().map_or(0, |event| event.seq).to_string();
            let page: EventList = self.ask(
                CONTROLLER,
                &["events", "--after", &after, "--limit", "1000"],
            );
            let done = page.events.is_empty();
            all.extend(page.events);
            if done || all.last().is_some_and(|last| last.seq >= page.head) {
                return all;
            }
        }
    }

    /// A new token that admits `node`.
    ///
    /// # Panics
    /// When there is none.
    #[must_use]
    pub fn token(&self, node: &str) -> String {
        let mut arguments = vec!["token", "create", "--name", node];
        for segment in self.segments_of(node) {
            arguments.extend(["--segment", segment]);
        }
        let output = self.meshctl(CONTROLLER, &arguments);
        assert!(output.status.success(), "no token for {node}: {output:?}");
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// A new token that admits `node`, in a file.
    ///
    /// # Panics
    /// When there is none.
    #[must_use]
    pub fn token_file(&self, node: &str) -> PathBuf {
        let path = self.folder().join(format!("{node}.token"));
        let file = std::fs::OpenOptions::new()
            .create(true)
            .write(true)
            .truncate(true)
            .mode(0o600)
            .open(&path);
        let written = file.and_then(|mut file| file.write_all(self.token(node).as_bytes()));
        written.expect("the folder can be written");
        path
    }
}
