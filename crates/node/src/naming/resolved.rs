//! systemd-resolved, told by its program `resolvectl` which DNS server a link has, and for which domains. The setting
//! belongs to the link: it goes with the interface, and nothing has to be undone.
//!
//! Refuses to tell a resolver of another network namespace: it would take this interface's number for one of its own.

use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::{Output, Stdio};
use std::time::Duration;
use tokio::process::Command;
use tokio::time::timeout;
use wire::admin::ResolverState;

/// The way to systemd-resolved.
pub(crate) struct Resolver {
    server: SocketAddr,
    /// The program and the arguments before all others.
    program: Vec<String>,
    is_here: fn() -> bool,
}

impl Resolver {
    /// For the DNS server at this address.
    pub(crate) fn new(server: SocketAddr) -> Self {
        Self {
            server,
            program: vec!["resolvectl".to_owned()],
            is_here,
        }
    }

    /// Tells it of the server for these domains, at a link. Where that is no news, only if the link has lost it.
    ///
    /// # Errors
    /// The fault in words, with the way out.
    pub(crate) async fn tell(
        &self,
        interface: &str,
        domains: &[String],
        is_news: bool,
    ) -> Result<ResolverState, String> {
        if !(self.is_here)() {
            return Ok(ResolverState::Absent);
        }
        let server = self.server.to_string();
        if !is_news {
            let now = self.run(&["dns", interface]).await?;
            let now = String::from_utf8_lossy(&now.stdout);
            if now.split_whitespace().any(|word| word == server) {
                return Ok(ResolverState::Told);
            }
        }
        self.run(&["dns", interface, &server]).await?;
        let domains = domains.iter().map(String::as_str);
        let words: Vec<&str> = ["domain", interface].into_iter().chain(domains).collect();
        self.run(&words).await?;
        // Names of others are for the other links.
        self.run(&["default-route", interface, "no"]).await?;
        Ok(ResolverState::Told)
    }

    async fn run(&self, words: &[&str]) -> Result<Output, String> {
        let fault = |why: &str| {
            format!(
                "systemd-resolved does not learn of the mesh's names (resolvectl {}: {why}): let this daemon's user \
                 set DNS of links (a polkit rule, see OPERATIONS), or set dns_resolved to \"off\"",
                words.join(" ")
            )
        };
        let (program, before) = self
            .program
            .split_first()
            .ok_or_else(|| fault("no program"))?;
        let mut command = Command::new(program);
        // An interface's name may begin with a dash.
        command.args(before).arg("--").args(words);
        command.stdin(Stdio::null()).kill_on_drop(true);
        let ran = timeout(TIME, command.output()).await;
        let output = ran.map_err(|_| fault("no answer in time"))?;
        let output = output.map_err(|error| fault(&error.to_string()))?;
        if output.status.success() {
            return Ok(output);
        }
        let said = String::from_utf8_lossy(&output.stderr);
        Err(fault(said.lines().next().unwrap_or("it failed")))
    }
}

/// Whether it runs, in this network namespace: the one of process 1. Each namespace's files in `/proc/net` have
/// numbers of their own, and anybody may see them.
fn is_here() -> bool {
    let file = |of: &str| std::fs::metadata(format!("/proc/{of}/net/dev")).map(|it| it.ino());
    let is_same = matches!((file("1"), file("self")), (Ok(one), Ok(own)) if one == own);
    is_same && Path::new("/run/systemd/resolve").is_dir()
}

const TIME: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    /// A program that says what it was told, and has one server.
    fn fake(folder: &Path) -> Resolver {
        let log = folder.join("log");
        let script = format!(
            "echo \"$@\" >>{}; [ \"$2 $#\" != 'dns 3' ] || echo 'Link 7 (m0): 127.0.0.1:53'; [ \"$3\" != bad ]",
            log.display()
        );
        let words = ["sh", "-c", &script, "resolvectl"];
        Resolver {
            server: "127.0.0.1:5376".parse().unwrap(),
            program: words.map(str::to_owned).to_vec(),
            is_here: || true,
        }
    }

    #[tokio::test]
    async fn a_link_has_the_server_for_the_mesh_and_is_told_again_when_it_was_lost() {
        let folder = tempfile::tempdir().unwrap();
        let resolver = fake(folder.path());
        let domains = ["mesh.internal".to_owned(), "~76.10.in-addr.arpa".to_owned()];
        let told = resolver.tell("m0", &domains, true).await;
        assert_eq!(told, Ok(ResolverState::Told));
        let log = || std::fs::read_to_string(folder.path().join("log")).unwrap();
        let all = "-- dns m0 127.0.0.1:5376\n-- domain m0 mesh.internal ~76.10.in-addr.arpa\n\
                   -- default-route m0 no\n";
        assert_eq!(log(), all);
        let told = resolver.tell("m0", &domains, false).await;
        assert_eq!(told, Ok(ResolverState::Told));
        assert_eq!(
            log(),
            format!("{all}-- dns m0\n{all}"),
            "it has another server"
        );
        let error = resolver.tell("bad", &domains, true).await.unwrap_err();
        assert!(
            error.contains("dns bad 127.0.0.1:5376: it failed"),
            "{error}"
        );
        let absent = Resolver {
            is_here: || false,
            ..fake(folder.path())
        };
        let told = absent.tell("m0", &domains, true).await;
        assert_eq!(told, Ok(ResolverState::Absent));
    }
}
