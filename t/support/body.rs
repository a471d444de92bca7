//! The body of a reply that comes bit by bit, and how it ends.

use std::io;

use super::http::{Client, Request, Response};

/// How the body of a reply ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// With its last chunk: it was complete.
    LastChunk,
    /// With the connection, and the body did not promise a last chunk.
    Closed,
    /// In the middle.
    CutOff,
}

/// A reply whose body comes bit by bit.
pub struct Body {
    client: Client,
    /// The reply's head; its body is empty.
    pub response: Response,
    ended: Option<Ended>,
}

impl Body {
    /// Sends a request and reads the head of the reply.
    pub fn open(mut client: Client, request: &Request) -> io::Result<Self> {
        client.try_send_bytes(&request.to_bytes())?;
        let response = client.try_head()?;
        Ok(Body { client, response, ended: None })
    }

    /// The next bytes, or nothing at the end.
    ///
    /// # Errors
    ///
    /// Nothing has come in the time that a test waits.
    pub fn read(&mut self) -> io::Result<Option<Vec<u8>>> {
        if self.ended.is_some() {
            return Ok(None);
        }
        let chunked = self.response.header("Transfer-Encoding") == Some("chunked");
        let result = match chunked {
            true => self.client.try_chunk(),
            false => self.client.try_some(),
        };
        match result {
            Ok(Some(bytes)) => return Ok(Some(bytes)),
            Ok(None) if chunked => self.ended = Some(Ended::LastChunk),
            Ok(None) => self.ended = Some(Ended::Closed),
            Err(error) if is_timeout(&error) => return Err(error),
            Err(_) => self.ended = Some(Ended::CutOff),
        }
        Ok(None)
    }

    /// How it ended, once [`Body::read`] has returned nothing.
    pub fn ended(&self) -> Option<Ended> {
        self.ended
    }

    /// The connection.
    pub fn client(&mut self) -> &mut Client {
        &mut self.client
    }

    /// Gives the connection back, to send another request or to break it.
    pub fn into_client(self) -> Client {
        self.client
    }
}

/// Whether a read has ended only because a test waits no longer.
pub fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}
