//! The rules in a real kernel, in a network namespace of the test's own: two mesh interfaces, and a machine
//! that forwards between all its interfaces unless somebody keeps it from that.

use super::nft;
use super::rules::{self, Scope};
use crate::io::offload::{OffloadSwitches, Offloads};
use crate::io::tun::{Backend, Maker, Tun};
use crate::io::{interface, links};
use crate::standing::{Fault, Wanted};
use rustix::thread::{UnshareFlags, unshare_unsafe};
use std::io::IoSlice;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

/// One mesh interface of the node.
struct Mesh {
    device: Vec<Box<dyn Tun>>,
    scope: Scope,
}

/// Runs `test` on a thread that has a network namespace to itself.
fn in_a_namespace(test: impl FnOnce() + Send + 'static) {
    let thread = std::thread::spawn(move || {
        #[expect(unsafe_code, reason = "a thread moves to another namespace")]
        // SAFETY: only this thread moves, and it ends with the test.
        let moved = unsafe { unshare_unsafe(UnshareFlags::NEWNET) };
        moved.expect("the tests need root, or a user namespace");
        test();
    });
    thread.join().expect("the test passes");
}

fn v4(segment: u8, host: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 77, segment, host)
}

fn v6(segment: u8, host: u8) -> Ipv6Addr {
    Ipv6Addr::new(0xFD00, 0, 0, segment.into(), 0, 0, 0, host.into())
}

fn mesh(segment: u8, name: &str) -> Mesh {
    let offloads = Arc::new(Offloads::new(OffloadSwitches::default()));
    let mut maker = Maker::new(name, Backend::Offload, offloads);
    let device = maker.make(1).expect("a device can be made");
    let index = interface::index_of(name).expect("it was just made");
    let (own_v4, own_v6) = ((v4(segment, 1), 24), (v6(segment, 1), 64));
    let wanted = Wanted {
        name: name.into(),
        index,
        v4: own_v4,
        v6: own_v6,
        mtu: 1420,
        queue_len: 500,
    };
    let missing = [
        Fault::Missing(own_v4.0.into(), own_v4.1),
        Fault::Missing(own_v6.0.into(), own_v6.1),
    ];
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime can be made");
    let set_up = runtime.block_on(links::restore(&wanted, &missing));
    set_up.expect("the interface can be set up");
    let scope = Scope {
        interface: name.into(),
        index,
        v4: own_v4,
        v6: own_v6,
        listen_port: 51_820,
        beside: Vec::new(),
    };
    Mesh { device, scope }
}

/// A UDP datagram from one host to another, as a tunnel would deliver it.
fn packet_v4(from: Ipv4Addr, to: Ipv4Addr) -> Vec<u8> {
    let mut packet = vec![0x45, 0, 0, 28, 0, 0, 0x40, 0, 64, 17, 0, 0];
    packet.extend(from.octets());
    packet.extend(to.octets());
    let words = packet
        .chunks(2)
        .map(|it| u32::from(it[0]) << 8 | u32::from(it[1]));
    let sum: u32 = words.sum();
    let sum = (sum & 0xFFFF) + (sum >> 16);
    packet[10..12].copy_from_slice(&(!(sum as u16)).to_be_bytes());
    packet.extend([0, 7, 0, 7, 0, 8, 0, 0]);
    packet
}

fn packet_v6(from: Ipv6Addr, to: Ipv6Addr) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0, 0, 8, 17, 64];
    packet.extend(from.octets());
    packet.extend(to.octets());
    packet.extend([0, 7, 0, 7, 0, 8, 0, 1]);
    packet
}

/// Whether a packet that is written to one device is read from the other.
fn crosses(from: &Mesh, to: &Mesh, packet: &[u8]) -> bool {
    let mut buffer = vec![0; 1 << 16];
    let is_ours = |seen: &[u8]| match seen[0] >> 4 {
        4 => seen[9] == 17 && seen[16..20] == packet[16..20],
        _ => seen[6] == 17 && seen[24..40] == packet[24..40],
    };
    let header = [0; 10];
    let slices = [IoSlice::new(&header), IoSlice::new(packet)];
    from.device[0].send(&slices).expect("the device takes it");
    // Forwarding is done before the write returns, or soon after.
    for _ in 0..20 {
        while let Ok(len) = to.device[0].recv(&mut buffer) {
            if len >= 10 + 28 && is_ours(&buffer[10..]) {
                return true;
            }
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    false
}

fn forward(how: &str) {
    for setting in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
        std::fs::write(format!("/proc/sys/net/{setting}"), how).expect("it is the test's own");
    }
    for setting in ["ipv4/conf/all/rp_filter", "ipv4/conf/default/rp_filter"] {
        std::fs::write(format!("/proc/sys/net/{setting}"), "0").expect("it is the test's own");
    }
}

#[test]
fn nothing_crosses_from_one_mesh_interface_to_another_whatever_the_machine_forwards() {
    in_a_namespace(|| {
        forward("1");
        let [one, mut two] = [mesh(1, "mesh0"), mesh(2, "mesh-training")];
        // Addresses are usable when they have been tentative for a while.
        std::thread::sleep(Duration::from_secs(3));
        let honest = [packet_v4(v4(1, 9), v4(2, 9)), packet_v6(v6(1, 9), v6(2, 9))];
        let forged = [packet_v4(v4(2, 8), v4(2, 9)), packet_v6(v6(2, 8), v6(2, 9))];
        for packet in &honest {
            assert!(
                crosses(&one, &two, packet),
                "without rules this machine forwards"
            );
        }
        nft::load(&rules::all(&one.scope)).expect("nft takes the rules");
        nft::load(&rules::all(&two.scope)).expect("nft takes the rules");
        assert!(
            crosses(&one, &two, &honest[0]),
            "neither table knows of the other"
        );
        two.scope.beside = vec![rules::Beside {
            interface: one.scope.interface.clone(),
            v4: one.scope.v4,
            v6: one.scope.v6,
        }];
        nft::load(&rules::all(&two.scope)).expect("nft takes the rules");
        let back = [packet_v4(v4(2, 9), v4(1, 9)), packet_v6(v6(2, 9), v6(1, 9))];
        // The address of a third machine, as a source that was translated would be.
        let strange = packet_v4(Ipv4Addr::new(192, 0, 2, 1), v4(2, 9));
        for how in ["1", "0"] {
            forward(how);
            for packet in honest.iter().chain(&forged).chain([&strange]) {
                assert!(!crosses(&one, &two, packet), "{how}: {packet:x?}");
            }
            for packet in &back {
                assert!(!crosses(&two, &one, packet), "{how}: {packet:x?}");
            }
        }
        // The rules that stay with `keep` keep them apart as well.
        forward("1");
        nft::load(&rules::fail_closed(&two.scope)).expect("nft takes the rules");
        assert!(!crosses(&one, &two, &honest[0]));
    });
}
