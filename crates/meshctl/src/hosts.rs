//! `meshctl hosts`: the names of the mesh, as lines of a hosts file.

use crate::answer::Answer;
use crate::client::Client;
use crate::failure::Failure;
use wire::admin::HostLine;

/// Runs the command.
pub(crate) async fn run(client: &Client, answer: &Answer) -> Result<(), Failure> {
    let reply = client.get("/v1/hosts").await?;
    answer.show(&reply, |all: Vec<HostLine>| lines(&all))
}

fn lines(all: &[HostLine]) -> String {
    let line = |it: &HostLine| format!("{} {}\n", it.address, it.names.join(" "));
    all.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_line_is_an_address_and_its_names() {
        let line = |address: &str, names: &[&str]| HostLine {
            address: address.parse().unwrap(),
            names: names.iter().map(|it| (*it).to_owned()).collect(),
        };
        let all = [
            line("10.76.0.2", &["node-b.mesh.internal", "node-b"]),
            line("fd00::2", &["node-b.mesh.internal"]),
        ];
        let text = "10.76.0.2 node-b.mesh.internal node-b\nfd00::2 node-b.mesh.internal\n";
        assert_eq!(lines(&all), text);
    }
}
