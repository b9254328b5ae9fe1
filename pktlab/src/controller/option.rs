//! Options of sockets at the endpoint (the NOPT extension).

use super::Error;
use super::listen::Listener;
use super::socket::{Core, SendHalf};
use crate::vmem::extension;
use crate::wire::{ExtRequest, NOpt, SockOpt};

impl Core {
    fn nopt(&self, option: SockOpt, value: Option<u32>) -> Result<super::Answer, Error> {
        if !self.shared.extension(extension::NOPT) {
            return Err(Error::Unsupported("socket options"));
        }
        self.shared.extension_request(&ExtRequest::NOpt(NOpt {
            socket: self.id,
            family: self.family.octet(),
            proto: self.proto.octet(),
            option: option.octet(),
            value,
        }))
    }

    fn option(&self, option: SockOpt) -> impl Future<Output = Result<u32, Error>> + use<> {
        let answer = self.nopt(option, None);
        async move {
            let data = answer?.data(4).await?;
            Ok(u32::from_be_bytes([data[0], data[1], data[2], data[3]]))
        }
    }

    fn set_option(&self, option: SockOpt, value: u32) -> impl Future<Output = Result<(), Error>> + use<> {
        let answer = self.nopt(option, Some(value));
        async move { answer?.success().await }
    }
}

impl SendHalf {
    /// Reads an option as the endpoint's system has it. TCP and UDP only.
    pub fn option(&self, option: SockOpt) -> impl Future<Output = Result<u32, Error>> + use<> {
        self.core.option(option)
    }

    /// Sets an option, queued at the call: it holds for what is sent after it, and NSENDs with a time in the future go out
    /// with what holds then. The answer need not be awaited for that.
    pub fn set_option(&self, option: SockOpt, value: u32) -> impl Future<Output = Result<(), Error>> + use<> {
        self.core.set_option(option, value)
    }
}

impl Listener {
    /// As [`SendHalf::set_option`]; connections inherit it where the endpoint's system does that.
    pub fn set_option(&self, option: SockOpt, value: u32) -> impl Future<Output = Result<(), Error>> + use<> {
        self.core().set_option(option, value)
    }
}
