//! The words of the log's first line that say where a daemon is and what it goes by.

use crate::config::RoleConfig;
use controller::SegmentSetup;
use policy::Policy;

/// The addresses of a daemon, in one line.
pub fn addresses(role: &RoleConfig) -> String {
    match role {
        RoleConfig::Controller(role) => {
            let advertised: Vec<String> = role.advertise.iter().map(ToString::to_string).collect();
            match &advertised[..] {
                [] => format!("UDP {}", role.listen),
                some => format!("UDP {}, advertised as {}", role.listen, some.join(" ")),
            }
        }
        RoleConfig::Node(role) => {
            let advertised: Vec<String> = role.advertise.iter().map(ToString::to_string).collect();
            match &advertised[..] {
                [] => format!(
                    "UDP port {}, interface {}",
                    role.listen_port, role.interface
                ),
                some => format!(
                    "UDP port {}, advertised as {}, interface {}",
                    role.listen_port,
                    some.join(" "),
                    role.interface
                ),
            }
        }
    }
}

/// A controller's policies, in one line; `None` for a node, which has none.
pub fn policies(role: &RoleConfig) -> Option<String> {
    match role {
        RoleConfig::Controller(role) => {
            let each: Vec<String> = role.segments.iter().map(segment).collect();
            Some(each.join("; "))
        }
        RoleConfig::Node(_) => None,
    }
}

fn segment(it: &SegmentSetup) -> String {
    let name = it.name.told();
    let name = name.map_or_else(String::new, |name| format!("{name}: "));
    let (v4, prefix) = it.mesh_v4;
    format!("{name}{v4}/{prefix}, {}", in_short(&it.policy))
}

fn in_short(policy: &Policy) -> String {
    let epochs = format!("epochs of {} s", policy.epoch_seconds);
    let names: Vec<&str> = policy.require.iter().map(|it| &*it.name).collect();
    match &names[..] {
        [] => format!("threshold {}, {epochs}", policy.threshold),
        some => format!("requires {}, {epochs}", some.join(" ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{read_file, resolve};

    #[test]
    fn the_first_line_says_where_a_controller_is_and_what_it_goes_by() {
        let dir = tempfile::tempdir().unwrap();
        let of = |text: &str| {
            let path = dir.path().join("meshd.toml");
            std::fs::write(&path, text).unwrap();
            let role = resolve(read_file(path).unwrap()).unwrap().role;
            (addresses(&role), policies(&role))
        };
        let (addresses, policy) = of("role = \"controller\"\nadvertise = [\"a.example:7443\"]");
        assert_eq!(addresses, "UDP [::]:7443, advertised as a.example:7443");
        let expected = "10.76.0.0/15, threshold 0.7, epochs of 60 s";
        assert_eq!(policy.as_deref(), Some(expected));
        let (addresses, policy) = of("role = \"node\"");
        assert_eq!(addresses, "UDP port 51820, interface meshd0");
        assert_eq!(policy, None);
    }
}
