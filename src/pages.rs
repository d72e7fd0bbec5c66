//! What the gate itself says: pages for people, problems for programs.

pub mod html;
pub mod audience;
pub mod sign_in;
pub mod refusal;

pub use audience::Asked;
