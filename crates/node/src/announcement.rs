//! The words to the controller about where this machine can be reached: those that were said, and those that are news.
//! Sends nothing.

use std::net::{IpAddr, SocketAddr};
use wire::ToController;

/// The setting, and what was said.
#[derive(Debug)]
pub(crate) struct Announcement {
    /// Addresses that the operator configured.
    advertised: Vec<SocketAddr>,
    /// Addresses of this machine, as the controller has been told.
    said: Vec<IpAddr>,
    /// The same, as it is to be told.
    found: Vec<IpAddr>,
}

impl Announcement {
    pub(crate) fn new(advertised: Vec<SocketAddr>) -> Self {
        Self {
            advertised,
            said: Vec::new(),
            found: Vec::new(),
        }
    }

    /// A connection began with these words.
    pub(crate) fn handle_said(&mut self, addresses: Vec<IpAddr>) {
        self.said = addresses;
    }

    /// This machine has these addresses now. The message to the controller, if it is news.
    pub(crate) fn handle_found(
        &mut self,
        addresses: Vec<IpAddr>,
        listen_port: u16,
    ) -> Option<ToController> {
        self.found = addresses;
        (self.found != self.said).then(|| ToController::Endpoints {
            listen_port,
            advertised: self.advertised.clone(),
            addresses: self.found.clone(),
        })
    }

    /// The message was sent, or could not be.
    pub(crate) fn handle_sent(&mut self, is_sent: bool) {
        if is_sent {
            tracing::info!(addresses = ?self.found, "this machine's addresses have changed: peers are told");
            self.said.clone_from(&self.found);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_news_until_it_was_sent() {
        let mut announcement = Announcement::new(Vec::new());
        let [one, other] = [[192, 0, 2, 1], [192, 0, 2, 2]].map(IpAddr::from);
        announcement.handle_said(vec![one]);
        assert!(announcement.handle_found(vec![one], 7).is_none());
        for _ in 0..2 {
            let news = announcement.handle_found(vec![one, other], 7);
            let Some(ToController::Endpoints { addresses, .. }) = news else {
                panic!("it is news");
            };
            assert_eq!(addresses, [one, other]);
            announcement.handle_sent(false);
        }
        announcement.handle_found(vec![one, other], 7);
        announcement.handle_sent(true);
        assert!(announcement.handle_found(vec![one, other], 7).is_none());
    }
}
