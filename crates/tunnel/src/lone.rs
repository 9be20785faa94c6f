//! A front door with one tunnel that is never closed: what tests, benches and simulations of one segment need.
//! A node has a [`FrontDoor`].

use crate::config::Config;
use crate::door::FrontDoor;
use crate::drops::Drops;
use crate::inbound::Inbound;
use crate::outer::Route;
use crate::tunnel::Tunnel;
use crate::tunnel_id::TunnelId;
use std::borrow::{Borrow, BorrowMut};
use std::ops::{Deref, DerefMut};
use std::time::Duration;

/// A front door and the one tunnel behind it, [`TunnelId::FIRST`], whose calls are its own as well.
pub struct LoneTunnel {
    door: FrontDoor,
}

impl LoneTunnel {
    /// A door for so many handshakes per second ([`FrontDoor::new`]), and behind it a tunnel without peers.
    pub fn new(handshakes_per_second: u64, config: Config) -> Self {
        let mut door = FrontDoor::new(handshakes_per_second);
        let opened = door.open(config);
        assert_eq!(opened, Ok(TunnelId::FIRST), "there is no other tunnel");
        Self { door }
    }

    /// Takes a datagram as [`FrontDoor::handle_udp`] does.
    pub fn handle_udp(
        &mut self,
        from: impl Into<Route>,
        datagram: &[u8],
        out: &mut [u8],
        now: Duration,
    ) -> Inbound {
        self.door.handle_udp(from, datagram, out, now)
    }

    /// Packets that were not carried, whether or not the door knew for whom they were.
    pub fn drops(&self) -> Drops {
        let mut drops = self.door.drops();
        drops.add(&Tunnel::drops(self));
        drops
    }

    #[cfg(test)]
    pub(crate) fn indices(&self) -> &crate::indices::IndexTable {
        self.door.indices()
    }
}

impl Deref for LoneTunnel {
    type Target = Tunnel;

    fn deref(&self) -> &Tunnel {
        self.door.tunnel(TunnelId::FIRST).expect(NEVER_CLOSED)
    }
}

impl DerefMut for LoneTunnel {
    fn deref_mut(&mut self) -> &mut Tunnel {
        self.door.tunnel_mut(TunnelId::FIRST).expect(NEVER_CLOSED)
    }
}

impl Borrow<FrontDoor> for LoneTunnel {
    fn borrow(&self) -> &FrontDoor {
        &self.door
    }
}

impl BorrowMut<FrontDoor> for LoneTunnel {
    fn borrow_mut(&mut self) -> &mut FrontDoor {
        &mut self.door
    }
}

impl Borrow<FrontDoor> for &mut LoneTunnel {
    fn borrow(&self) -> &FrontDoor {
        &self.door
    }
}

impl BorrowMut<FrontDoor> for &mut LoneTunnel {
    fn borrow_mut(&mut self) -> &mut FrontDoor {
        &mut self.door
    }
}

const NEVER_CLOSED: &str = "the tunnel is never closed";
