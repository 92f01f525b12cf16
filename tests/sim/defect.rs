//! Planted defects: what is wrong with the broker under test, so that oracles show that they can fail.
//!
//! Most stand on the wire: frames are changed on their way as a faulty broker would have treated them. So none of them is in the broker's code.

use plugin_api::storage::Durability;
use plugin_api::testing::Random;

use crate::meddler::{Meddler, Trick};

/// One defect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Defect {
    /// Confirms go out when the operating system has a message.
    ConfirmEarly,
    /// Syncs of the store do nothing.
    SkipSync,
    /// The wall clock of the broker goes three times too fast.
    FastClock,
    OnTheWire(Trick),
}

/// Each defect with the oracle that must notice it.
pub(crate) const DEFECTS: &[(&str, Defect, &str)] = &[
    ("confirm-before-the-sync", Defect::ConfirmEarly, "loss"),
    ("skipped-sync", Defect::SkipSync, "loss"),
    ("requeued-message-dropped", Defect::OnTheWire(Trick::DiscardRequeued), "loss"),
    ("publishes-swapped", Defect::OnTheWire(Trick::SwapPublishes), "order"),
    ("prefetch-ignored", Defect::OnTheWire(Trick::IgnorePrefetch), "prefetch"),
    ("number-confirmed-twice", Defect::OnTheWire(Trick::ConfirmTwice), "confirms"),
    ("confirm-forgotten", Defect::OnTheWire(Trick::ForgetConfirm), "liveness"),
    ("delivery-forgotten", Defect::OnTheWire(Trick::ForgetDelivery), "protocol"),
    ("ack-forgotten", Defect::OnTheWire(Trick::ForgetAck), "once"),
    ("publish-doubled", Defect::OnTheWire(Trick::DoublePublish), "conservation"),
    ("publish-swallowed", Defect::OnTheWire(Trick::SwallowPublish), "holes"),
    ("redelivered-hidden", Defect::OnTheWire(Trick::HideRedelivered), "redelivered"),
    ("redelivered-invented", Defect::OnTheWire(Trick::InventRedelivered), "redelivered"),
    ("ack-unheard", Defect::OnTheWire(Trick::ForgetAck), "served"),
    ("clock-too-fast", Defect::FastClock, "ttl"),
    ("rollback-commits", Defect::OnTheWire(Trick::CommitAlways), "transactions"),
    ("every-consumer-active", Defect::OnTheWire(Trick::StripArgument("x-single-active-consumer")), "single_active"),
    ("length-unlimited", Defect::OnTheWire(Trick::StripArgument("x-max-length")), "length"),
    ("returns-unlimited", Defect::OnTheWire(Trick::StripArgument("x-delivery-limit")), "attempts"),
    ("priorities-ignored", Defect::OnTheWire(Trick::StripArgument("x-max-priority")), "priority"),
    ("dead-letters-lost", Defect::OnTheWire(Trick::StripArgument("x-dead-letter-exchange")), "loss"),
    ("ttl-forgotten", Defect::OnTheWire(Trick::StripArgument("x-message-ttl")), "ttl"),
    ("ack-rejects", Defect::OnTheWire(Trick::RejectAcked), "deaths"),
];

impl Defect {
    /// What stands on the wire of a connection.
    pub(crate) fn meddler(self, random: Random) -> Option<Meddler> {
        match self {
            Self::OnTheWire(trick) => Some(Meddler::new(trick, random)),
            Self::ConfirmEarly | Self::SkipSync | Self::FastClock => None,
        }
    }

    /// What an append of the store waits for.
    pub(crate) fn durability(self) -> Durability {
        if self == Self::ConfirmEarly { Durability::Os } else { Durability::Synced }
    }
}
