//! Markers that say whether a handle may lend references into shared memory.

/// The handle's peers may be anybody who can open the memory: only calls that copy in and out.
#[derive(Debug, Clone, Copy)]
pub enum Untrusted {}

/// Every process that maps the memory keeps to the protocol: calls that lend references are allowed.
///
/// A handle becomes trusted through an `unsafe fn trust_peers`, or by living in memory that was only ever handed to
/// processes of one's own family.
#[derive(Debug, Clone, Copy)]
pub enum Trusted {}

/// [`Trusted`] or [`Untrusted`]: the last parameter of a handle's type.
pub trait Trust: sealed::Sealed + 'static {}

impl Trust for Trusted {}
impl Trust for Untrusted {}

mod sealed {
    pub trait Sealed {}
    impl Sealed for super::Trusted {}
    impl Sealed for super::Untrusted {}
}
