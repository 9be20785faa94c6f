//! One node and all its peers in one process: what the benchmarks of the tunnel have in common.
#![allow(dead_code, reason = "each benchmark uses a part")]

use keys::{Epoch, Psk, WgPublicKey, WgSecret};
use rand_core::OsRng;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;
use tunnel::{Config, FrontDoor, Inside, Outbound, Path, PeerSpec, Range};

/// From the announcement of an epoch to its beginning.
pub(crate) const LEAD: Duration = Duration::from_secs(5);

/// A tunnel with its key and its place.
pub(crate) struct Endpoint {
    pub(crate) tunnel: FrontDoor,
    pub(crate) key: WgPublicKey,
    pub(crate) inner: Ipv4Addr,
    pub(crate) outer: SocketAddr,
}

/// One node and all its peers.
pub(crate) struct Star {
    pub(crate) hub: Endpoint,
    pub(crate) spokes: Vec<Endpoint>,
    pub(crate) epoch: u64,
    pub(crate) now: Duration,
}

fn endpoint(number: u16) -> Endpoint {
    let secret = WgSecret::generate(&mut OsRng);
    let key = secret.public();
    let [high, low] = number.to_be_bytes();
    let inner = Ipv4Addr::new(10, 76, high, low);
    let tunnel = FrontDoor::new(Config {
        inside: Inside {
            own: vec![inner.into()],
            ranges: vec![Range::new(inner.into(), 16)],
        },
        secret,
        mtu: 1420,
        handshakes_per_second: u64::MAX,
        seed: number.into(),
    });
    Endpoint {
        tunnel,
        key,
        inner,
        outer: SocketAddr::from(([192, 0, 2, 1], 10_000 + number)),
    }
}

pub(crate) fn psk(epoch: u64, spoke: usize) -> Psk {
    let mut bytes = [epoch as u8; 32];
    bytes[..8].copy_from_slice(&(spoke as u64).to_be_bytes());
    Psk::from_bytes(bytes)
}

impl Star {
    /// All peers connected and active.
    pub(crate) fn connected(peers: usize) -> Self {
        let hub = endpoint(0);
        let spokes = (1..=peers).map(|number| endpoint(number as u16)).collect();
        let mut star = Self {
            hub,
            spokes,
            epoch: 0,
            now: Duration::from_secs(1_000),
        };
        star.install();
        star.activate();
        star.talk();
        star
    }

    fn install(&mut self) {
        self.epoch += 1;
        let (epoch, now) = (Epoch(self.epoch), self.now);
        let spec = |endpoint: &Endpoint| PeerSpec {
            key: endpoint.key,
            allowed: vec![IpAddr::V4(endpoint.inner)],
        };
        let peers = self
            .spokes
            .iter()
            .enumerate()
            .map(|(at, spoke)| (spec(spoke), psk(epoch.0, at)))
            .collect();
        self.hub.tunnel.install(epoch, peers, LEAD, None, now);
        for (at, spoke) in self.spokes.iter_mut().enumerate() {
            spoke.tunnel.install(
                epoch,
                vec![(spec(&self.hub), psk(epoch.0, at))],
                LEAD,
                None,
                now,
            );
            self.hub
                .tunnel
                .set_endpoints(&spoke.key, vec![spoke.outer], now);
            spoke
                .tunnel
                .set_endpoints(&self.hub.key, vec![self.hub.outer], now);
        }
    }

    fn activate(&mut self) {
        let epoch = Epoch(self.epoch);
        self.hub.tunnel.activate(epoch, self.now);
        self.spokes
            .iter_mut()
            .for_each(|spoke| spoke.tunnel.activate(epoch, self.now));
    }

    fn discard(&mut self) {
        self.hub.tunnel.discard_previous();
        self.spokes
            .iter_mut()
            .for_each(|spoke| spoke.tunnel.discard_previous());
    }

    /// One packet from each peer, so that every pair counts as active.
    pub(crate) fn talk(&mut self) {
        let hub = self.hub.inner;
        let mut out = [0; 256];
        for spoke in &mut self.spokes {
            let mut packet = [0; 64];
            packet[0] = 0x45;
            packet[2..4].copy_from_slice(&48u16.to_be_bytes());
            packet[12..16].copy_from_slice(&spoke.inner.octets());
            packet[16..20].copy_from_slice(&hub.octets());
            if let Outbound::Send { len, .. } =
                spoke.tunnel.handle_tun(&mut packet, 48, &mut out, self.now)
            {
                self.hub
                    .tunnel
                    .handle_udp(spoke.outer, &out[..len], &mut [0; 256], self.now);
            }
        }
        self.settle();
    }

    /// Carries handshake messages until nobody has one.
    fn settle(&mut self) {
        let mut out = [0; 256];
        let mut busy = true;
        while std::mem::take(&mut busy) {
            self.hub.tunnel.handle_timeout(self.now);
            while let Some(transmit) = self.hub.tunnel.poll_transmit() {
                let Path::Udp(to) = transmit.to;
                let spoke = &mut self.spokes[usize::from(to.port()) - 10_001];
                spoke
                    .tunnel
                    .handle_udp(self.hub.outer, &transmit.payload, &mut out, self.now);
                busy = true;
            }
            for spoke in &mut self.spokes {
                spoke.tunnel.handle_timeout(self.now);
                while let Some(transmit) = spoke.tunnel.poll_transmit() {
                    self.hub
                        .tunnel
                        .handle_udp(spoke.outer, &transmit.payload, &mut out, self.now);
                    busy = true;
                }
            }
        }
    }

    /// One whole rotation, as two sides of each pair see it.
    pub(crate) fn hand_over(&mut self) {
        self.install();
        self.now += LEAD;
        self.settle();
        self.activate();
        self.settle();
        self.discard();
    }

    pub(crate) fn check(&self) {
        let sessions = self.hub.tunnel.snapshot(self.now);
        assert_eq!(sessions.len(), self.spokes.len());
        assert!(
            sessions
                .iter()
                .all(|peer| peer.session_epoch == Some(Epoch(self.epoch))),
            "every peer moved"
        );
    }
}
