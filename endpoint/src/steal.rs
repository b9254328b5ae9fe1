use std::net::SocketAddr;
#[derive(Clone, Copy, Debug)]
pub struct Connection {
    pub local: SocketAddr,
    pub remote: SocketAddr,
}
pub struct Steal;
impl Steal {
    pub fn attach(_: u32, _: &[Connection]) -> std::io::Result<Steal> {
        Ok(Steal)
    }
    pub fn set(&mut self, _: &crate::filter::Filter, _: u64) -> std::io::Result<()> {
        Ok(())
    }
}
