//! Encoding of the messages. An undecodable message is the client's fault, so it is INVALID_ARGUMENT and not INTERNAL.

use std::marker::PhantomData;

use prost::Message;
use tonic::Status;
use tonic::codec::{DecodeBuf, Decoder, EncodeBuf, Encoder};

/// Encodes and decodes messages with prost.
#[derive(Debug)]
pub struct Codec<T, U>(PhantomData<(T, U)>);

impl<T, U> Default for Codec<T, U> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T: Message + 'static, U: Message + Default + 'static> tonic::codec::Codec for Codec<T, U> {
    type Encode = T;
    type Decode = U;
    type Encoder = Plain<T>;
    type Decoder = Plain<U>;

    fn encoder(&mut self) -> Plain<T> {
        Plain(PhantomData)
    }

    fn decoder(&mut self) -> Plain<U> {
        Plain(PhantomData)
    }
}

/// The encoder or the decoder.
#[derive(Debug)]
pub struct Plain<T>(PhantomData<T>);

impl<T: Message> Encoder for Plain<T> {
    type Item = T;
    type Error = Status;

    fn encode(&mut self, item: T, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        item.encode(buffer).map_err(|error| Status::internal(error.to_string()))
    }
}

impl<T: Message + Default> Decoder for Plain<T> {
    type Item = T;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<T>, Status> {
        let message = T::decode(buffer);
        message.map(Some).map_err(|error| Status::invalid_argument(format!("the message can't be read: {error}")))
    }
}
