//! Sorting, filtering, paging and columns.

use super::broker;
use serde_json::{Value, json};
use tests::http::Http;

fn names(list: &Value) -> Vec<&str> {
    list.as_array().unwrap().iter().map(|item| item["name"].as_str().unwrap()).collect()
}

fn with_queues() -> (tests::broker_process::BrokerProcess, Http) {
    let (broker, http) = broker();
    for name in ["orders.eu", "Orders.us", "audit"] {
        assert_eq!(http.put(&format!("/queues/%2F/{name}"), &json!({"durable": name == "audit"})), 201);
    }
    (broker, http)
}

#[test]
fn lists_come_in_the_order_of_names_unless_asked_otherwise() {
    let (_broker, http) = with_queues();
    assert_eq!(names(&http.get("/queues")), ["Orders.us", "audit", "orders.eu"]);
    assert_eq!(names(&http.get("/queues?sort=name&sort_reverse=true")), ["orders.eu", "audit", "Orders.us"]);
    assert_eq!(names(&http.get("/queues?sort=durable")), ["Orders.us", "orders.eu", "audit"]);
    assert_eq!(names(&http.get("/queues?sort=no.such.key")), ["Orders.us", "audit", "orders.eu"]);
}

#[test]
fn a_page_is_cut_and_says_how_much_there_is() {
    let (_broker, http) = with_queues();
    let page = http.get("/queues?page=2&page_size=2&columns=name");
    let expected = json!({
        "total_count": 3, "filtered_count": 3, "item_count": 1, "page": 2, "page_size": 2, "page_count": 2,
        "items": [{"name": "orders.eu"}],
    });
    assert_eq!(page, expected);
    let found = http.get("/queues/%2F?page=1&use_regex=true&pagination=false&name=^orders&page_size=100");
    assert_eq!((names(&found["items"]), found["filtered_count"].clone()), (vec!["Orders.us", "orders.eu"], json!(2)));
    assert_eq!(names(&http.get("/queues?page=1&name=EU")["items"]), ["orders.eu"]);
    assert_eq!(names(&http.get("/queues?name=EU")).len(), 3, "without a page nothing is filtered");
}

#[test]
fn pages_that_cannot_be_are_refused() {
    let (_broker, http) = with_queues();
    let refusal = |query: &str| {
        let answer = http.send("GET", &format!("/queues?{query}"), b"");
        assert_eq!(answer.status, 400, "{query}");
        answer.refusal()
    };
    let check =
        |query: &str, error: &str, reason: &str| assert_eq!(refusal(query), (error.to_owned(), reason.to_owned()));
    check("page=9", "page_out_of_range", "Page out of range, page: 9 page size: 100, len: 3");
    check(
        "page=1&page_size=900",
        "invalid_pagination_parameters",
        "Invalid pagination parameters: page number 1, page size 900",
    );
    check(
        "page=0&page_size=10",
        "invalid_pagination_parameters",
        "Invalid pagination parameters: page number 0, page size 10",
    );
    assert_eq!(refusal("page=x").0, "bad_request");
    let long = "a".repeat(1025);
    assert_eq!(refusal(&format!("page=1&use_regex=true&name={long}")).0, "invalid_pagination_parameters");
    assert_eq!(
        http.get("/queues?page=1&use_regex=true&name=(")["items"],
        json!([]),
        "what is no expression finds nothing"
    );
}

#[test]
fn columns_are_for_lists_and_single_objects() {
    let (_broker, http) = with_queues();
    assert_eq!(http.get("/queues/%2F/audit?columns=name,arguments"), json!({"name": "audit", "arguments": {}}));
    assert_eq!(http.get("/whoami?columns=name"), json!({"name": "guest"}));
}

#[test]
fn the_header_x_vhost_filters_lists_without_a_vhost_in_their_path() {
    let (_broker, http) = with_queues();
    assert_eq!(http.put("/vhosts/other", &json!({})), 201);
    assert_eq!(http.put("/queues/other/q", &json!({})), 201);
    assert_eq!(names(&http.clone().header("x-vhost", "other").get("/queues")), ["q"]);
    assert_eq!(names(&http.header("x-vhost", "").get("/queues")).len(), 4);
}
