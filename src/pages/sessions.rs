//! The sessions of somebody, on all their devices, and how to end them.
//!
//! No token and no cookie is shown; a session is named by a part of its hash, which opens nothing.

use std::net::IpAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{Response, StatusCode};

use super::html::Html;
use super::{Context, SESSIONS, SIGN_OUT};

/// A device that somebody is signed in on.
#[derive(Debug)]
pub struct Device {
    /// What it is named by.
    pub id: String,
    /// Whether it is the one that asks.
    pub is_this: bool,
    /// Where it signed in, and as which browser; none if that can't be read.
    pub from: Option<(IpAddr, String)>,
    /// The hosts that it is signed in to.
    pub hosts: Vec<String>,
    /// How long ago it signed in.
    pub since: Option<Duration>,
    /// How long ago it was used.
    pub used: Duration,
}

/// The page; `csrf` is the token of its forms.
pub fn page(ctx: &Context<'_>, name: &str, csrf: &str, devices: &[Device]) -> Response<Bytes> {
    let mut html = Html::of("<p>You are signed in as <b>")
        .name(name)
        .markup("</b>. If you do not know one of these devices, sign it out and tell ")
        .html(&ctx.contact())
        .markup(".</p>\n<ul class=\"devices\">\n");
    for device in devices {
        html = html.html(&item(device, csrf));
    }
    html = html.markup("</ul>\n");
    html = html
        .html(&form(csrf, EVERYWHERE, "Sign out everywhere"))
        .markup("<p class=\"quiet\"><a href=\"")
        .markup(SIGN_OUT)
        .markup("\">Sign out here only</a></p>\n");
    super::page(ctx, StatusCode::OK, "Your sessions", &html)
}

/// What a form says that ends all sessions.
pub const EVERYWHERE: &str = "everywhere";

fn item(device: &Device, csrf: &str) -> Html {
    let mut html = Html::of("<li><b>");
    html = match &device.from {
        Some((_, browser)) if !browser.is_empty() => html.text(browser),
        Some(_) | None => html.markup("A browser"),
    };
    html = html.markup("</b>");
    if device.is_this {
        html = html.markup(" <span class=\"this\">this device</span>");
    }
    html = html.markup("<br>\n");
    if let Some((client, _)) = &device.from {
        html = html
            .markup("<span class=\"soft\">Address ")
            .text(&client.to_string())
            .markup("</span><br>\n");
    }
    if !device.hosts.is_empty() {
        html = html.markup("<span class=\"soft\">At ");
        for (number, host) in device.hosts.iter().enumerate() {
            html = html.markup(if number == 0 { "" } else { ", " }).name(host);
        }
        html = html.markup("</span><br>\n");
    }
    html = html.markup("<span class=\"soft\">");
    if let Some(since) = device.since {
        html = html.markup("Signed in ").text(&ago(since)).markup(", last");
    } else {
        html = html.markup("Last");
    }
    html = html
        .markup(" used ")
        .text(&ago(device.used))
        .markup("</span>\n");
    if !device.is_this {
        html = html.html(&form(csrf, &device.id, "Sign out"));
    }
    html.markup("</li>\n")
}

fn form(csrf: &str, end: &str, button: &'static str) -> Html {
    Html::of("<form method=\"post\" action=\"")
        .markup(SESSIONS)
        .markup("\"><input type=\"hidden\" name=\"csrf\" value=\"")
        .text(csrf)
        .markup("\"><input type=\"hidden\" name=\"end\" value=\"")
        .text(end)
        .markup("\"><button>")
        .markup(button)
        .markup("</button></form>\n")
}

/// A time that has passed, as people say it.
fn ago(time: Duration) -> String {
    match time.as_secs() {
        ..=90 => "just now".to_owned(),
        seconds @ 91..=5400 => format!("{}\u{a0}minutes ago", seconds / 60),
        seconds @ 5401..=172_800 => format!("{}\u{a0}hours ago", seconds.div_ceil(3600)),
        seconds => format!("{}\u{a0}days ago", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_said_as_people_say_them() {
        for (seconds, said) in [
            (0, "just now"),
            (300, "5\u{a0}minutes ago"),
            (7200, "2\u{a0}hours ago"),
            (5 * 86_400, "5\u{a0}days ago"),
        ] {
            assert_eq!(ago(Duration::from_secs(seconds)), said);
        }
    }
}
