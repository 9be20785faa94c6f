//! Settings of a mesh. The defaults are the product's, but for a fast emitter and probe.

use super::mesh::Mesh;
use std::collections::BTreeMap;

/// A mesh to be.
#[derive(Debug, Clone)]
pub struct Builder {
    pub(super) nodes: usize,
    pub(super) controller: BTreeMap<String, String>,
    pub(super) every_node: BTreeMap<String, String>,
    pub(super) one_node: BTreeMap<String, BTreeMap<String, String>>,
    /// Name, IPv4 range and policy of each; none: the mesh has the one of its settings.
    pub(super) segments: Vec<(String, String, String)>,
    /// The segments that a node's token is for, and that it asks for.
    pub(super) places: BTreeMap<String, Vec<String>>,
}

impl Builder {
    pub(super) fn new() -> Self {
        let every_node = [
            // All hosts share one /var/run, and name their interfaces alike.
            ("wireguard_dir", "\"off\""),
            ("interface", "\"meshd0\""),
            ("emitter", "\"mock\""),
            ("mock_jitter", "0.0"),
            ("emit_seconds", "1"),
            ("probe_seconds", "1"),
        ];
        let every_node = every_node.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let builder = Self {
            nodes: 3,
            controller: BTreeMap::new(),
            every_node: BTreeMap::from(every_node),
            one_node: BTreeMap::new(),
            segments: Vec::new(),
            places: BTreeMap::new(),
        };
        // Long enough for every first evidence to arrive.
        builder.epoch_seconds(2).probation_epochs(3)
    }

    /// Number of nodes: node-a, node-b, … node-z, node-aa, … at most 250; 3 unless told.
    #[must_use]
    pub fn nodes(mut self, nodes: usize) -> Self {
        assert!(nodes <= 250, "at most 250 nodes");
        self.nodes = nodes;
        self
    }

    /// Length of an epoch; 2 unless told.
    #[must_use]
    pub fn epoch_seconds(self, seconds: u64) -> Self {
        self.controller_setting("epoch_seconds", seconds)
    }

    /// Least score of a member.
    #[must_use]
    pub fn threshold(self, threshold: f64) -> Self {
        self.controller_setting("threshold", format!("{threshold:?}"))
    }

    /// Scheduled rotations for which a new node is admitted regardless; 3 unless told.
    #[must_use]
    pub fn probation_epochs(self, epochs: u32) -> Self {
        self.controller_setting("probation_epochs", epochs)
    }

    /// How long nodes go on without news.
    #[must_use]
    pub fn lease_seconds(self, seconds: u64) -> Self {
        self.controller_setting("lease_seconds", seconds)
    }

    /// A segment with an IPv4 range and a policy, as TOML. The policy takes the place of that in the settings.
    #[must_use]
    pub fn segment(mut self, name: &str, range: &str, policy: &str) -> Self {
        self.controller.remove("epoch_seconds");
        self.controller.remove("probation_epochs");
        let segment = (name.to_owned(), range.to_owned(), policy.to_owned());
        self.segments.push(segment);
        self
    }

    /// A node asks for these segments, and gets a token for them.
    #[must_use]
    pub fn node_in(mut self, node: &str, segments: &[&str]) -> Self {
        let names: Vec<String> = segments.iter().map(|it| (*it).to_owned()).collect();
        self.places.insert(node.to_owned(), names);
        self.node_setting(node, "segments", format!("{segments:?}"))
    }

    /// Mean score of one node; 0.9 unless told.
    #[must_use]
    pub fn mean(self, node: &str, mean: f64) -> Self {
        self.node_setting(node, "mock_mean", format!("{mean:?}"))
    }

    /// A line of the controller's settings; `value` as TOML, so text in quotes.
    #[must_use]
    pub fn controller_setting(mut self, name: &str, value: impl ToString) -> Self {
        self.controller.insert(name.into(), value.to_string());
        self
    }

    /// A line of every node's settings; `value` as TOML, so text in quotes.
    #[must_use]
    pub fn every_node_setting(mut self, name: &str, value: impl ToString) -> Self {
        self.every_node.insert(name.into(), value.to_string());
        self
    }

    /// A line of one node's settings; `value` as TOML, so text in quotes.
    #[must_use]
    pub fn node_setting(mut self, node: &str, name: &str, value: impl ToString) -> Self {
        let settings = self.one_node.entry(node.into()).or_default();
        settings.insert(name.into(), value.to_string());
        self
    }

    /// Namespaces, links and settings, and no daemon yet. Waits while two other meshes of this test
    /// binary are there.
    #[must_use]
    pub fn prepare(self) -> Mesh {
        Mesh::prepare(self)
    }

    /// All of it, up to the point where everybody is a member and reaches everybody.
    #[must_use]
    pub fn start(self) -> Mesh {
        let mut mesh = self.prepare();
        mesh.start_controller();
        for node in mesh.nodes() {
            mesh.start_node(&node);
        }
        mesh.wait_until_all_reach_all();
        mesh
    }
}
