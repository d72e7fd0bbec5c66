//! Tells when a file of the configuration changes.

use std::path::{Path, PathBuf};
use std::time::Duration;

use notify::{EventKind, RecursiveMode, Watcher as _};
use tokio::sync::mpsc::{Receiver, Sender, channel};

/// Editors write, rename and touch; one reload for all of it.
pub const QUIET: Duration = Duration::from_millis(150);

/// Watches until dropped.
#[derive(Debug)]
pub struct Watch {
    _watcher: notify::RecommendedWatcher,
    changes: Receiver<()>,
}

/// Watches `directory` and the files that the configuration names, wherever they are.
///
/// # Errors
/// What the system can't watch.
pub fn watch(directory: &Path, files: &[PathBuf]) -> notify::Result<Watch> {
    let (tell, changes) = channel(1);
    let mut watcher = notify::recommended_watcher(move |event| told(&tell, event))?;
    watcher.watch(directory, RecursiveMode::NonRecursive)?;
    for below in ["policies", "policies/tests"] {
        let path = directory.join(below);
        if path.is_dir() {
            watcher.watch(&path, RecursiveMode::NonRecursive)?;
        }
    }
    // A file that is replaced is another file: its directory is what stays.
    let mut parents: Vec<&Path> = files.iter().filter_map(|file| file.parent()).collect();
    parents.sort_unstable();
    parents.dedup();
    for parent in parents.into_iter().filter(|parent| parent.is_dir()) {
        watcher.watch(parent, RecursiveMode::NonRecursive)?;
    }
    Ok(Watch {
        _watcher: watcher,
        changes,
    })
}

fn told(tell: &Sender<()>, event: notify::Result<notify::Event>) {
    let relevant = event.is_ok_and(|event| {
        let changes = matches!(
            event.kind,
            EventKind::Create(_) | EventKind::Modify(_) | EventKind::Remove(_)
        );
        let ours = |path: &PathBuf| {
            let name = path
                .file_name()
                .and_then(|name| name.to_str())
                .unwrap_or_default();
            // The store of sessions changes all the time.
            !name.starts_with('.') && !name.ends_with(".redb") && !name.ends_with('~')
        };
        changes && event.paths.iter().any(ours)
    });
    if relevant {
        // One that waits already tells the same.
        let _ = tell.try_send(());
    }
}

impl Watch {
    /// Waits for a change, and until changes have paused.
    pub async fn changed(&mut self) {
        if self.changes.recv().await.is_none() {
            std::future::pending::<()>().await;
        }
        while let Ok(Some(())) = tokio::time::timeout(QUIET, self.changes.recv()).await {}
    }
}
