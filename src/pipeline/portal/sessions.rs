//! The page on which people see on which devices they are signed in, and sign them out.
//!
//! A session that was made of another, at the sign-in host, is that one's device and ends with it.

use std::time::Duration;

use bytes::Bytes;
use http::Response;

use crate::body::Body;
use crate::identity::Known;
use crate::pages::sessions::{self, Device, EVERYWHERE};
use crate::pages::{self, SESSIONS, SIGN_IN};
use crate::pure::session::{Hash, Parent, Seconds};
use crate::pure::{cookie, form, hex};
use crate::record::Record;
use crate::session::Listed;

use super::{Refused, Visit};

/// What the page's forms are made for.
const PURPOSE: &str = "sessions";
/// Bytes of a field of the form.
const MOST_FIELD: usize = 256;

impl Visit<'_> {
    /// The page of whoever is signed in; the way to sign in for others.
    pub(super) async fn sessions_page(
        &self,
        seen: &mut Record,
    ) -> Result<Response<Bytes>, Refused> {
        let Some((cookie, known)) = self.who_asks(seen).await? else {
            return Ok(pages::redirect(&self.context(seen), SIGN_IN));
        };
        let person = self.identity.vouched_for(&known);
        let listed = self.identity.sessions_of(&person, self.now).await;
        let listed = listed.map_err(|_| Refused::Store)?;
        let devices = self.devices(&listed, &known);
        let token = self.identity.form_token(PURPOSE, cookie, self.now);
        let context = self.context(seen);
        Ok(sessions::page(&context, &known.user.name, &token, &devices))
    }

    /// Ends what a form of the page names.
    pub(super) async fn end_sessions(
        &self,
        body: Body,
        seen: &mut Record,
    ) -> Result<Response<Bytes>, Refused> {
        self.same_site()?;
        let text = self.form_of(body, form::MAX_BYTES).await?;
        let fields = form::some(&text, ["csrf", "end"], MOST_FIELD).map_err(Refused::Form)?;
        let [Some(csrf), Some(end)] = fields else {
            return Err(Refused::Form(form::BadForm::Missing));
        };
        let Some((cookie, known)) = self.who_asks(seen).await? else {
            return Ok(pages::redirect(&self.context(seen), SIGN_IN));
        };
        let made_here = self
            .identity
            .check_form(PURPOSE, Some(cookie), &csrf, self.now);
        if let Err(forged) = made_here {
            seen.refused = Some(forged.reason());
            return Ok(pages::redirect(&self.context(seen), SESSIONS));
        }
        let person = self.identity.vouched_for(&known);
        let listed = self.identity.sessions_of(&person, self.now).await;
        let listed = listed.map_err(|_| Refused::Store)?;
        if *end == EVERYWHERE {
            // The others first: whom the store fails in between is signed in here, and can try again.
            let here = this_device(&known);
            let is_here = |one: &Listed| {
                let parent = one.summary.as_ref().and_then(|summary| summary.parent);
                here.contains(&Some(one.hash)) || parent.is_some() && here.contains(&parent)
            };
            let others = listed.iter().filter(|one| !is_here(one));
            let others: Vec<_> = others.map(|one| one.hash).collect();
            self.end(&known, &others).await?;
            let signed_out = self.sign_out(seen).await?;
            let all = self.identity.sign_out_everywhere(&person, self.now);
            all.await.map_err(|_| Refused::Store)?;
            return Ok(signed_out);
        }
        // One that is not there any more is ended, as was asked.
        let all = listed.iter().map(|one| one.hash);
        let named: Vec<_> = all.filter(|hash| name_of(*hash) == *end).collect();
        self.end(&known, &named).await?;
        Ok(pages::redirect(&self.context(seen), SESSIONS))
    }

    async fn end(&self, known: &Known, which: &[Hash]) -> Result<(), Refused> {
        let ending = self.identity.end_sessions(&known.user, which, self.now);
        ending.await.map_err(|_| Refused::Store)
    }

    /// Whoever has a session, and its cookie.
    async fn who_asks(&self, seen: &mut Record) -> Result<Option<(&str, Known)>, Refused> {
        let Some(cookie) = self.cookie(cookie::SESSION)? else {
            return Ok(None);
        };
        let known = self.identity.session(cookie, self.now).await;
        let Some(known) = known.map_err(|_| Refused::Store)? else {
            return Ok(None);
        };
        seen.user = Some(known.user.clone());
        Ok(Some((cookie, known)))
    }

    /// The devices of these sessions, this one first and then by last use.
    fn devices(&self, listed: &[Listed], known: &Known) -> Vec<Device> {
        let now = Seconds::of(self.now);
        let since = |then: Seconds| Duration::from_secs(now.0.saturating_sub(then.0));
        let parent = |one: &Listed| one.summary.as_ref()?.parent;
        let is_listed = |hash: Hash| listed.iter().any(|one| one.hash == hash);
        let here = this_device(known);
        let devices = listed
            .iter()
            .filter(|one| !parent(one).is_some_and(is_listed));
        let mut devices: Vec<_> = devices
            .map(|one| {
                let made_of_it = listed
                    .iter()
                    .filter(|other| parent(other) == Some(one.hash));
                let all = || std::iter::once(one).chain(made_of_it.clone());
                let hosts = all().filter_map(|one| one.summary.as_ref());
                let used = all().map(|one| one.seen).max().unwrap_or(one.seen);
                let summary = one.summary.as_ref();
                Device {
                    id: name_of(one.hash),
                    is_this: here.contains(&Some(one.hash)),
                    from: summary.map(|summary| (summary.client, summary.browser.clone())),
                    hosts: hosts
                        .map(|summary| summary.host.clone())
                        .filter(|host| !host.is_empty())
                        .collect(),
                    since: summary.map(|summary| since(summary.created)),
                    used: since(used),
                }
            })
            .collect();
        devices.sort_by_key(|device| (!device.is_this, device.used));
        devices
    }
}

/// The session that somebody has shown, and the one that it was made of.
fn this_device(known: &Known) -> [Option<Hash>; 2] {
    let parent = known.live.record().parent.as_ref().map(Parent::id);
    [Some(known.live.hash()), parent.map(|parent| parent.hash())]
}

/// What a session is named by on the page: enough of its hash to tell a user's own apart.
fn name_of(hash: Hash) -> String {
    let digits = hash.0.iter().take(8).flat_map(|byte| hex::lower(*byte));
    digits.map(char::from).collect()
}
