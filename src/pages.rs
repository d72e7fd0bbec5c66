//! What the gate itself says: pages for people, problems for programs.

pub mod html;
pub mod audience;
pub mod refusal;
pub mod sign_in;

pub use audience::Asked;
