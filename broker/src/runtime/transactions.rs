//! What the held publishes of transactions may take in memory.
//!
//! They cannot count against the publisher's credit: a socket that is left unread would never bring the tx.commit. So there are two
//! limits, one for a connection and one for all together, and a publish beyond either closes its channel with 406, which drops the
//! transaction (semantics 15.8). The second keeps transactions alone from raising the memory alarm: it would stop the very connections
//! whose commits could end it.

use std::sync::atomic::{AtomicU64, Ordering};

/// All transactions together may take this part of the memory watermark: one in so many.
const WATERMARK_PART: u64 = 4;

/// See the module.
#[derive(Debug)]
pub struct Transactions {
    connection_bytes_max: u64,
    all_bytes_max: AtomicU64,
    used_bytes: AtomicU64,
}

/// Why a publish cannot be held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TransactionTooLarge {
    /// The connection's own transactions.
    #[error("the transactions of this connection take more than {0} bytes (limits.transaction_bytes_max)")]
    Connection(u64),
    /// Those of everybody.
    #[error("the transactions of all connections take more than {0} bytes, a quarter of limits.memory_watermark_bytes")]
    All(u64),
}

impl Transactions {
    /// `connection_bytes_max` for the transactions of one connection, and a part of the watermark for all.
    pub fn new(connection_bytes_max: u64, memory_watermark_bytes: u64) -> Self {
        let transactions =
            Self { connection_bytes_max, all_bytes_max: AtomicU64::new(0), used_bytes: AtomicU64::new(0) };
        transactions.on_memory_watermark(memory_watermark_bytes);
        transactions
    }

    /// The watermark has changed. What is held already stays.
    pub fn on_memory_watermark(&self, memory_watermark_bytes: u64) {
        self.all_bytes_max.store(memory_watermark_bytes / WATERMARK_PART, Ordering::Relaxed);
    }

    /// Takes room for a publish of a connection whose transactions take `connection_bytes` already.
    ///
    /// # Errors
    /// There is none.
    pub fn take(&self, connection_bytes: u64, bytes: u64) -> Result<(), TransactionTooLarge> {
        if connection_bytes + bytes > self.connection_bytes_max {
            return Err(TransactionTooLarge::Connection(self.connection_bytes_max));
        }
        let all_bytes_max = self.all_bytes_max.load(Ordering::Relaxed);
        if self.used_bytes.fetch_add(bytes, Ordering::Relaxed) + bytes > all_bytes_max {
            self.give_back(bytes);
            return Err(TransactionTooLarge::All(all_bytes_max));
        }
        Ok(())
    }

    /// Publishes were committed or dropped.
    pub fn give_back(&self, bytes: u64) {
        self.used_bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// What all transactions take now.
    pub fn used_bytes(&self) -> u64 {
        self.used_bytes.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_and_all_together_have_their_limits() {
        let transactions = Transactions::new(100, 600);
        assert_eq!(transactions.take(0, 100), Ok(()));
        assert_eq!(transactions.take(100, 1), Err(TransactionTooLarge::Connection(100)));
        assert_eq!(transactions.take(0, 51), Err(TransactionTooLarge::All(150)));
        assert_eq!(transactions.take(0, 50), Ok(()));
        transactions.on_memory_watermark(400);
        assert_eq!(transactions.take(0, 1), Err(TransactionTooLarge::All(100)));
        transactions.give_back(150);
        assert_eq!(transactions.used_bytes(), 0);
    }
}
