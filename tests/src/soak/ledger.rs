//! What was confirmed, and what somebody has acked: at the end of a cycle the first is part of the second.

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::streams::STREAMS;

/// One bit a message, for each stream.
#[derive(Debug)]
pub struct Ledger(Vec<Mutex<Stream>>);

#[derive(Debug, Default)]
struct Stream {
    published: u64,
    confirmed: Bits,
    acked: Bits,
    refused: u64,
    twice: u64,
}

#[derive(Debug, Default)]
struct Bits {
    words: Vec<u64>,
    count: u64,
}

impl Bits {
    /// Whether it is new.
    fn set(&mut self, number: u64) -> bool {
        let word = (number / 64) as usize;
        if word >= self.words.len() {
            self.words.resize(word + 1, 0);
        }
        let bit = 1 << (number % 64);
        let is_new = self.words[word] & bit == 0;
        self.words[word] |= bit;
        self.count += u64::from(is_new);
        is_new
    }
}

impl Ledger {
    /// Nothing of any stream.
    pub fn new() -> Self {
        Self(STREAMS.iter().map(|_| Mutex::default()).collect())
    }

    fn stream(&self, place: usize) -> MutexGuard<'_, Stream> {
        self.0[place].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The number of the next message.
    pub fn publish(&self, stream: usize) -> u64 {
        let mut stream = self.stream(stream);
        stream.published += 1;
        stream.published - 1
    }

    /// The broker has confirmed it.
    pub fn confirm(&self, stream: usize, number: u64) {
        self.stream(stream).confirmed.set(number);
    }

    /// The broker has refused it, which only a full queue may.
    pub fn refuse(&self, stream: usize) {
        self.stream(stream).refused += 1;
    }

    /// A consumer has it and acks it.
    ///
    /// # Errors
    /// When nobody has published it.
    pub fn ack(&self, stream: usize, number: u64) -> Result<(), String> {
        if stream >= self.0.len() || number >= self.stream(stream).published {
            return Err(format!("message {number} of stream {stream} was delivered and never published"));
        }
        let mut stream = self.stream(stream);
        if !stream.acked.set(number) {
            stream.twice += 1;
        }
        Ok(())
    }

    /// One sentence for each stream that lacks something.
    pub fn missing(&self) -> Vec<String> {
        let mut missing = Vec::new();
        for (place, stream) in STREAMS.iter().enumerate() {
            let log = self.stream(place);
            let acked = log.acked.words.iter().copied().chain(std::iter::repeat(0));
            let lost: u64 =
                log.confirmed.words.iter().zip(acked).map(|(said, came)| u64::from((said & !came).count_ones())).sum();
            if lost > 0 {
                missing.push(format!("{lost} confirmed messages of {} have not arrived", stream.name));
            }
            if log.refused > 0 && !stream.may_refuse {
                missing.push(format!("{} messages of {} were refused", log.refused, stream.name));
            }
            // Whatever is neither confirmed nor refused by now is without an answer.
            if log.confirmed.count + log.refused != log.published {
                missing.push(format!(
                    "{} messages of {} have no answer",
                    log.published - log.confirmed.count - log.refused,
                    stream.name
                ));
            }
        }
        missing
    }
}

impl Default for Ledger {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Display for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut sums = [0; 4];
        for place in 0..self.0.len() {
            let log = self.stream(place);
            let row = [log.confirmed.count, log.acked.count, log.twice, log.refused];
            sums.iter_mut().zip(row).for_each(|(sum, count)| *sum += count);
        }
        let [confirmed, acked, twice, refused] = sums;
        write!(f, "{confirmed} confirmed, {acked} acked, {twice} of them again, {refused} refused by full queues")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_confirmed_and_not_acked_is_missing() {
        let ledger = Ledger::new();
        for _ in 0..100 {
            let number = ledger.publish(0);
            ledger.confirm(0, number);
        }
        for number in (0..100).filter(|number| *number != 70) {
            ledger.ack(0, number).expect("it was published");
        }
        assert_eq!(ledger.missing(), ["1 confirmed messages of work have not arrived"]);
        ledger.ack(0, 70).expect("it was published");
        assert_eq!(ledger.missing(), [""; 0]);
    }

    #[test]
    fn a_publish_without_an_answer_and_an_invented_message_are_told() {
        let ledger = Ledger::new();
        ledger.publish(0);
        assert_eq!(ledger.missing(), ["1 messages of work have no answer"]);
        assert!(ledger.ack(0, 1).is_err());
    }

    #[test]
    fn only_a_queue_with_a_limit_may_refuse() {
        let ledger = Ledger::new();
        for (place, stream) in STREAMS.iter().enumerate() {
            ledger.publish(place);
            ledger.refuse(place);
            assert_eq!(ledger.missing().iter().any(|text| text.contains(stream.name)), !stream.may_refuse);
        }
    }
}
