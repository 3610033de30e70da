//! A JSON API over SQLite.

use overfall::{
    Builder, Handle,
    http::{self, Failure, Request, Response, StatusCode},
};
use parking_lot::Mutex;
use rusqlite::{Connection, OptionalExtension, Row, params};
use serde::{Deserialize, Serialize};

#[derive(Serialize)]
struct Item {
    id: i64,
    name: String,
    price: u32,
}

#[derive(Deserialize)]
struct NewItem {
    name: String,
    price: u32,
}

struct Items(Mutex<Connection>);

impl Items {
    fn new() -> rusqlite::Result<Self> {
        let db = Connection::open_in_memory()?;
        db.execute_batch("CREATE TABLE items (id INTEGER PRIMARY KEY, name TEXT UNIQUE, price INTEGER)")?;
        Ok(Self(Mutex::new(db)))
    }

    fn answer(&self, request: &Request<'_>) -> Result<Response, Failure> {
        match (request.method().as_str(), &request.path_segments()[..]) {
            ("GET" | "HEAD", ["items"]) => self.list(request),
            ("POST", ["items"]) => self.create(request.json()?),
            ("GET" | "HEAD", ["items", id]) => self.get(id),
            ("DELETE", ["items", id]) => self.delete(id),
            (_, ["items"] | ["items", _]) => Ok(StatusCode::METHOD_NOT_ALLOWED.into()),
            _ => Ok(StatusCode::NOT_FOUND.into()),
        }
    }

    fn list(&self, request: &Request<'_>) -> Result<Response, Failure> {
        let most = request.query_pairs().find(|(name, _)| name == "max_price");
        let most = most.map_or(Ok(u32::MAX), |(_, price)| price.parse());
        let most = most.map_err(|_| Failure::new(StatusCode::BAD_REQUEST, "max_price is no number\n"))?;
        let db = self.0.lock();
        let mut query = db.prepare("SELECT id, name, price FROM items WHERE price <= ? ORDER BY id")?;
        let items: Vec<_> = query.query_map([most], item)?.collect::<Result<_, _>>()?;
        Ok(Response::json(&items))
    }

    fn create(&self, NewItem { name, price }: NewItem) -> Result<Response, Failure> {
        let db = self.0.lock();
        if db.execute("INSERT OR IGNORE INTO items (name, price) VALUES (?, ?)", params![name, price])? == 0 {
            return Err(Failure::new(StatusCode::CONFLICT, format!("there is a {name} already\n")));
        }
        let item = Item { id: db.last_insert_rowid(), name, price };
        Ok(Response::json(&item).status(StatusCode::CREATED))
    }

    fn get(&self, id: &str) -> Result<Response, Failure> {
        let query = "SELECT id, name, price FROM items WHERE id = ?";
        let item = self.0.lock().query_row(query, [id], item).optional()?;
        Ok(item.map_or(StatusCode::NOT_FOUND.into(), |item| Response::json(&item)))
    }

    fn delete(&self, id: &str) -> Result<Response, Failure> {
        let deleted = self.0.lock().execute("DELETE FROM items WHERE id = ?", [id])?;
        Ok(if deleted == 0 { StatusCode::NOT_FOUND } else { StatusCode::NO_CONTENT }.into())
    }
}

fn item(row: &Row<'_>) -> rusqlite::Result<Item> {
    Ok(Item { id: row.get(0)?, name: row.get(1)?, price: row.get(2)? })
}

fn serve(server: Builder) -> Result<Handle, Box<dyn std::error::Error>> {
    let items = Items::new()?;
    Ok(http::serve(server, move |request| items.answer(request))?)
}

/// What a request is answered with: the status and the text.
fn asked(items: &Items, method: &str, uri: &str, body: &'static str) -> (u16, String) {
    let request = Request::builder().method(method).uri(uri).header("Content-Type", "application/json");
    let response = Response::from(items.answer(&request.body(body)));
    let body = response.body().expect("it is in memory");
    (response.status_code().as_u16(), String::from_utf8_lossy(body).into_owned())
}

#[test]
fn items_are_kept_and_what_is_wrong_is_said() {
    let items = Items::new().expect("a database");
    let one = r#"{"id":1,"name":"a","price":5}"#;
    for (method, uri, body, status, text) in [
        ("GET", "/items", "", 200, "[]"),
        ("POST", "/items", r#"{"name":"a","price":5}"#, 201, one),
        ("POST", "/items", r#"{"name":"a","price":6}"#, 409, "there is a a already\n"),
        ("POST", "/items", r#"{"name":"b","price":9}"#, 201, r#"{"id":2,"name":"b","price":9}"#),
        ("GET", "/items/1", "", 200, one),
        ("GET", "/items?max_price=6", "", 200, r#"[{"id":1,"name":"a","price":5}]"#),
        ("GET", "/items?max_price=x", "", 400, "max_price is no number\n"),
        ("POST", "/items", r#"{"name":"c"}"#, 422, "missing field `price` at line 1 column 12\n"),
        ("POST", "/items", "{", 400, "EOF while parsing an object at line 1 column 1\n"),
        ("DELETE", "/items/1", "", 204, ""),
        ("DELETE", "/items/1", "", 404, "404 Not Found\n"),
        ("GET", "/items/1", "", 404, "404 Not Found\n"),
        ("PUT", "/items/1", "", 405, "405 Method Not Allowed\n"),
        ("GET", "/", "", 404, "404 Not Found\n"),
    ] {
        assert_eq!(asked(&items, method, uri, body), (status, text.to_owned()), "{method} {uri} {body}");
    }
}

#[test]
fn what_may_come_from_a_page_of_others_is_no_item() {
    let items = Items::new().expect("a database");
    let form = Request::builder().method("POST").uri("/items").header("Content-Type", "text/plain");
    let response = Response::from(items.answer(&form.body(r#"{"name":"a","price":5}"#)));
    assert_eq!(response.status_code(), StatusCode::UNSUPPORTED_MEDIA_TYPE);
}

#[test]
fn a_failing_database_is_500() {
    let items = Items::new().expect("a database");
    items.0.lock().execute_batch("DROP TABLE items").expect("it is dropped");
    assert_eq!(asked(&items, "GET", "/items", ""), (500, "500 Internal Server Error\n".to_owned()));
}

#[test]
fn it_serves() {
    let handle = serve(crate::support::builder()).expect("it serves");
    let reply =
        crate::support::exchange(handle.local_addr(), b"GET /items HTTP/1.0\r\n\r\n").expect("a reply");
    let text = String::from_utf8(reply).expect("text");
    assert!(text.contains("Content-Type: application/json\r\n") && text.ends_with("\r\n\r\n[]"), "{text}");
}
