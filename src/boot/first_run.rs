//! The first start in a fresh checkout: one local account, with a password made once.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use zeroize::Zeroizing;

use crate::identity::accounts::{self, Account, EditError};
use crate::identity::password::Stored;
use crate::keys;

/// The account's name.
pub const NAME: &str = "admin";

/// Makes the account if there is no file of accounts; its password, the only copy.
///
/// # Errors
/// What can't be made or written.
pub fn account(file: &Path) -> Result<Option<Zeroizing<String>>, EditError> {
    if file.exists() {
        return Ok(None);
    }
    if let Some(directory) = file.parent() {
        std::fs::create_dir_all(directory)
            .map_err(|error| EditError::File(directory.to_owned(), error))?;
    }
    let unusable =
        |why: &str| EditError::File(file.to_owned(), std::io::Error::other(why.to_owned()));
    let random = keys::random::<15>().map_err(|_| unusable("no random bytes from the system"))?;
    let password = Zeroizing::new(URL_SAFE_NO_PAD.encode(*random));
    let salt = keys::random::<16>().map_err(|_| unusable("no random bytes from the system"))?;
    let stored =
        Stored::new(&password, &salt).map_err(|_| unusable("the password can't be hashed"))?;
    let account = Account::new(stored, vec!["admins".into()], None);
    accounts::edit(file, |accounts| accounts.add(NAME, account))?;
    Ok(Some(password))
}
