//! How much was carried: inner packets, without what WireGuard adds.

/// Inner packets that were carried, and their bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Packets sealed.
    pub tx_packets: u64,
    /// Bytes of inner packets sealed.
    pub tx_bytes: u64,
    /// Packets opened.
    pub rx_packets: u64,
    /// Bytes of inner packets opened.
    pub rx_bytes: u64,
}

impl Traffic {
    pub(crate) fn sealed(&mut self, bytes: usize) {
        self.tx_packets += 1;
        self.tx_bytes += bytes as u64;
    }

    pub(crate) fn opened(&mut self, bytes: usize) {
        self.rx_packets += 1;
        self.rx_bytes += bytes as u64;
    }

    pub(crate) fn add(&mut self, other: Self) {
        self.tx_packets += other.tx_packets;
        self.tx_bytes += other.tx_bytes;
        self.rx_packets += other.rx_packets;
        self.rx_bytes += other.rx_bytes;
    }
}
