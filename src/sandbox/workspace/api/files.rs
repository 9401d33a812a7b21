//! The current upload flow (`files.upload` is gone since November 2025): ask for an address, POST
//! the bytes there, complete the upload in a channel or thread.

use serde_json::{Map, Value, json};

use super::super::view::{File, View};
use super::{Answer, Args, Fail, chat};

pub(super) fn upload_url(view: &mut View, args: &Args) -> Answer {
    let name = args.need("filename")?;
    if args.number("length").is_none_or(|n| n == 0) {
        return Err(Fail::with(
            "invalid_arguments",
            vec!["[ERROR] missing required field: length".to_owned()],
        ));
    }
    let id = view.make_id("F");
    let title = name.clone();
    let file = File { id: id.clone(), name, title, bytes: Vec::new(), channel: None, thread_ts: None };
    view.uploads.insert(id.clone(), file);
    Ok(json!({"upload_url": format!("http://{}/upload/{id}", view.address), "file_id": id}))
}

pub(super) fn complete(view: &mut View, args: &Args) -> Answer {
    let Some(Value::Array(list)) = args.nested("files")? else {
        return Err(Fail::with(
            "invalid_arguments",
            vec!["[ERROR] missing required field: files".to_owned()],
        ));
    };
    let channel = match args.text("channel_id") {
        None => None,
        Some(id) => {
            let room = view.rooms.get(&id).ok_or_else(|| Fail::new("channel_not_found"))?;
            if !room.is_member {
                return Err(Fail::new("not_in_channel"));
            }
            Some(id)
        }
    };
    let thread_ts = match &channel {
        Some(channel) => chat::thread_for(view, channel, args)?,
        None => None,
    };
    let ids: Vec<&str> = list.iter().filter_map(|f| f["id"].as_str()).collect();
    if ids.len() != list.len()
        || ids.iter().any(|id| view.uploads.get(*id).is_none_or(|f| f.bytes.is_empty()))
    {
        return Err(Fail::new("file_not_found"));
    }
    let mut shared = Vec::new();
    for entry in &list {
        let Some(mut file) = entry["id"].as_str().and_then(|id| view.uploads.remove(id)) else { continue };
        if let Some(title) = entry["title"].as_str() {
            file.title = title.to_owned();
        }
        file.channel.clone_from(&channel);
        file.thread_ts.clone_from(&thread_ts);
        shared.push(describe(view, &file));
        view.files.push(file);
    }
    if let Some(channel) = &channel {
        let mut message = Map::new();
        message.insert("text".to_owned(), args.text("initial_comment").unwrap_or_default().into());
        message.insert("files".to_owned(), shared.clone().into());
        message.insert("upload".to_owned(), false.into());
        if let Some(thread_ts) = thread_ts {
            message.insert("thread_ts".to_owned(), thread_ts.into());
        }
        chat::sign(view, &mut message);
        view.store(channel, message);
    }
    Ok(json!({"files": shared}))
}

fn describe(view: &View, file: &File) -> Value {
    let private = format!("http://{}/files/{}", view.address, file.id);
    json!({"id": file.id, "name": file.name, "title": file.title, "mimetype": "text/plain", "filetype": "text",
        "size": file.bytes.len(), "mode": "snippet", "user": view.options.bot.user_id,
        "url_private": private, "url_private_download": private, "is_public": true})
}
