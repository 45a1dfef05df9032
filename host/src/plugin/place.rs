//! Where in Kafka the messages of a call are, for the lines that a handler writes and for reports of what went wrong in
//! it. Nothing is decided by it.

use std::fmt;
use std::sync::Arc;

use sluicebox_frames::{Message, Messages};

/// Topic-partition, and which messages of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Topic; of several, the first message's.
    pub topic: Arc<str>,
    /// Partition, likewise.
    pub partition: u32,
    /// First and last offset, where the call is about messages.
    pub offsets: Option<(i64, i64)>,
    /// Messages of the call.
    pub messages: usize,
    /// Which attempt it is of the first of them, from 1.
    pub attempt: u32,
}

impl Place {
    /// Of a burst or a batch; `None` when it holds no message.
    #[must_use]
    pub fn of(messages: &Messages<'_>) -> Option<Self> {
        let mut place = None;
        Self::set_all(&mut place, messages);
        place
    }

    /// A topic-partition's own.
    #[must_use]
    pub fn of_partition(topic: &Arc<str>, partition: u32) -> Self {
        Self { topic: Arc::clone(topic), partition, offsets: None, messages: 0, attempt: 1 }
    }

    /// The same topic-partition, without messages.
    #[must_use]
    pub fn without_messages(self) -> Self {
        Self { offsets: None, messages: 0, attempt: 1, ..self }
    }

    /// Becomes that of a burst or a batch. The topic is copied only when it is another one: this happens at every call.
    pub(super) fn set_all(place: &mut Option<Self>, messages: &Messages<'_>) {
        let Some(last) = messages.len().checked_sub(1) else { return };
        Self::set(place, &messages.get(0), messages.get(last).offset(), messages.len());
    }

    /// Becomes that of a single message.
    pub(super) fn set_one(place: &mut Option<Self>, message: &Message<'_>) {
        Self::set(place, message, message.offset(), 1);
    }

    /// Becomes a topic-partition's own.
    pub(super) fn set_partition(place: &mut Option<Self>, topic: &str, partition: u32) {
        let topic = match place.take() {
            Some(place) if *place.topic == *topic => place.topic,
            _ => topic.into(),
        };
        *place = Some(Self { topic, partition, offsets: None, messages: 0, attempt: 1 });
    }

    fn set(place: &mut Option<Self>, first: &Message<'_>, last: i64, messages: usize) {
        let source = first.source();
        let (offsets, attempt) = (Some((first.offset(), last)), first.attempt());
        match place {
            Some(place) if *place.topic == *source.topic => {
                place.partition = source.partition;
                (place.offsets, place.messages, place.attempt) = (offsets, messages, attempt);
            }
            _ => {
                let (topic, partition) = (source.topic.into(), source.partition);
                *place = Some(Self { topic, partition, offsets, messages, attempt });
            }
        }
    }
}

/// `orders[7]@881204`, `orders[7]@881204..881219`, `orders[7]`.
impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}[{}]", self.topic, self.partition)?;
        match self.offsets {
            Some((first, last)) if first == last => write!(f, "@{first}"),
            Some((first, last)) => write!(f, "@{first}..{last}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sluicebox_frames::{Frame, Headers, MessagesWriter, NewMessage, Source, TimestampType};

    fn burst(topic: &str, offsets: &[i64]) -> Frame {
        let mut frame = Frame::default();
        let mut writer = MessagesWriter::burst(&mut frame, Source { topic, partition: 7 }, 1, false);
        for offset in offsets {
            let message = NewMessage {
                offset: *offset,
                timestamp: 0,
                timestamp_type: TimestampType::CreateTime,
                key: None,
                value: None,
                attempt: 3,
                source: 0,
            };
            writer.push(&message, Headers::default());
        }
        writer.finish();
        frame
    }

    #[test]
    fn places_read_as_people_write_them() {
        let mut place = None;
        Place::set_all(&mut place, &Messages::new(&burst("orders", &[])));
        assert_eq!(place, None);
        Place::set_all(&mut place, &Messages::new(&burst("orders", &[5, 6, 9])));
        let topic = Arc::clone(&place.as_ref().expect("messages").topic);
        assert_eq!(place.as_ref().map(ToString::to_string).as_deref(), Some("orders[7]@5..9"));
        Place::set_one(&mut place, &Messages::new(&burst("orders", &[5, 6])).get(1));
        let one = place.clone().expect("a message");
        assert_eq!((one.to_string().as_str(), one.messages, one.attempt), ("orders[7]@6", 1, 3));
        assert!(Arc::ptr_eq(&topic, &one.topic), "the same topic is not copied again");
        assert_eq!(one.without_messages().to_string(), "orders[7]");
        Place::set_partition(&mut place, "orders", 9);
        assert_eq!(place.as_ref().map(ToString::to_string).as_deref(), Some("orders[9]"));
        Place::set_all(&mut place, &Messages::new(&burst("returns", &[1])));
        assert_eq!(place.map(|place| place.to_string()).as_deref(), Some("returns[7]@1"));
    }
}
