//! A real device in a network namespace of the test's own.

use super::{Backend, Maker, Tun};
use crate::io::offload::{OffloadSwitches, Offloads};
use crate::io::{interface, links};
use crate::standing::{Fault, Wanted};
use rustix::thread::{UnshareFlags, unshare_unsafe};
use std::io::{ErrorKind, IoSlice};
use std::net::{Ipv4Addr, Ipv6Addr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

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

/// Which queue has a packet from port 7 on, and how many there are in it.
fn arrivals(queues: &[Box<dyn Tun>]) -> Vec<usize> {
    let mut buffer = vec![0; 1 << 16];
    let mut seen = vec![0; queues.len()];
    for (queue, count) in queues.iter().zip(&mut seen) {
        loop {
            match queue.recv(&mut buffer) {
                // Behind the offload header; the machine has some neighbour discovery to do besides.
                Ok(_) if is_ours(&buffer[10..]) => *count += 1,
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => panic!("{error}"),
            }
        }
    }
    seen
}

fn is_ours(packet: &[u8]) -> bool {
    packet[0] == 0x45 && packet[9] == 17 || packet[0] >> 4 == 6 && packet[6] == 17
}

/// An answer from `host`, as it would come from a peer.
fn answer(host: u8) -> Vec<u8> {
    let mut packet = vec![0; 10];
    packet.extend([0x45, 0, 0, 28, 0, 0, 0x40, 0, 64, 17, 0, 0]);
    packet.extend([10, 76, 0, host, 10, 76, 0, 1, 0, 7, 0, 7, 0, 8, 0, 0]);
    packet
}

#[test]
fn what_goes_to_a_member_is_read_from_one_queue_whatever_comes_back_by_another() {
    in_a_namespace(|| {
        let offloads = Arc::new(Offloads::new(OffloadSwitches::default()));
        let mut maker = Maker::new("steered", Backend::Offload, offloads);
        let queues = maker.make(4).expect("a device can be made");
        let place = Wanted {
            name: "steered".into(),
            index: interface::index_of("steered").expect("it was just made"),
            v4: (Ipv4Addr::new(10, 76, 0, 1), 16),
            v6: (Ipv6Addr::new(0xFD00, 0, 0, 0, 0, 0, 0, 1), 64),
            mtu: 1420,
            queue_len: 500,
        };
        let missing = [
            Fault::Missing(place.v4.0.into(), place.v4.1),
            Fault::Missing(place.v6.0.into(), place.v6.1),
        ];
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        runtime
            .expect("a runtime can be made")
            .block_on(links::restore(&place, &missing))
            .expect("the interface can be set up");
        // An address of its own is usable when it has been tentative for a while.
        let v6 = (0..500).find_map(|_| {
            std::thread::sleep(Duration::from_millis(10));
            UdpSocket::bind((place.v6.0, 7)).ok()
        });
        let v6 = v6.expect("the address becomes usable");
        let v4 = UdpSocket::bind((place.v4.0, 7)).expect("the port is free");
        arrivals(&queues);

        let mut used = Vec::new();
        for host in 2..10 {
            let mut of_host = vec![0; queues.len()];
            for round in 0..8 {
                let to = Ipv4Addr::new(10, 76, 0, host);
                v4.send_to(b"there", (to, 7)).expect("the interface is up");
                let to = Ipv6Addr::new(0xFD00, 0, 0, 0, 0, 0, 0, host.into());
                v6.send_to(b"there", (to, 7)).expect("the interface is up");
                let answered = &queues[round % queues.len()];
                let back = answer(host);
                answered
                    .send(&[IoSlice::new(&back)])
                    .expect("the device takes it");
                let seen = arrivals(&queues);
                of_host
                    .iter_mut()
                    .zip(seen)
                    .for_each(|(all, new)| *all += new);
            }
            assert_eq!(
                of_host.iter().sum::<usize>(),
                16,
                "host {host}: {of_host:?}"
            );
            let queue = of_host.iter().position(|count| *count == 16);
            used.push(queue.unwrap_or_else(|| panic!("host {host} is split: {of_host:?}")));
        }
        let even =
            |queue| used.iter().filter(|it| **it == queue).count() == used.len() / queues.len();
        assert!((0..queues.len()).all(even), "hosts spread evenly: {used:?}");
    });
}
