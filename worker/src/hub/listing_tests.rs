//! Tests of what is taken from the Hub's lists, and of lists that must not be believed.

use super::*;

fn asked() -> Asked {
    Asked::of(Kind::Model, "org/name", "main", None).unwrap()
}

fn list(files: &[&str]) -> Result<Listing> {
    let file = |name: &&str| format!(r#"{{"rfilename":"{name}","size":3,"blobId":"{}"}}"#, "b".repeat(40));
    let files: Vec<String> = files.iter().map(file).collect();
    let text = format!(r#"{{"sha":"{}","siblings":[{}]}}"#, "a".repeat(40), files.join(","));
    Listing::read(text.as_bytes(), &asked())
}

#[test]
fn of_a_model_the_weights_of_its_index_and_what_lies_beside_them_are_needed() {
    let names = [
        "config.json",
        "tokenizer.json",
        "tokenizer.model",
        "LICENSE.txt",
        "README.md",
        "pytorch_model.bin",
        "consolidated.safetensors",
        "a-1.safetensors",
        "a-2.safetensors",
        "original/params.json",
        "figure.png",
    ];
    let listing = list(&names).unwrap();
    let index = BTreeSet::from(["a-1.safetensors".to_owned(), "a-2.safetensors".to_owned()]);
    let needed: Vec<&str> =
        listing.model(Some(&index), &asked()).unwrap().iter().map(|file| file.name.as_str()).collect();
    let expected = [
        "a-1.safetensors",
        "a-2.safetensors",
        "config.json",
        "tokenizer.json",
        "tokenizer.model",
        "LICENSE.txt",
        "README.md",
    ];
    assert_eq!(needed, expected);
    let refused = listing.model(None, &asked()).unwrap_err();
    assert!(refused.message.contains("has no safetensors weights"), "{refused}");
    let gone = BTreeSet::from(["b.safetensors".to_owned()]);
    assert!(listing.model(Some(&gone), &asked()).unwrap_err().message.contains("b.safetensors"));
}

#[test]
fn of_a_data_set_one_file_is_needed() {
    let asked =
        |file: Option<&str>| Asked::of(Kind::Dataset, "org/name", "main", file.map(str::to_owned)).unwrap();
    let listing = list(&["README.md", "data/a.jsonl", "b.parquet"]).unwrap();
    assert_eq!(listing.data(&asked(None)).unwrap().name, "data/a.jsonl");
    assert!(listing.data(&asked(Some("c.txt"))).unwrap_err().hint.unwrap().contains("data/a.jsonl"));
    let several = list(&["a.jsonl", "b.txt"]).unwrap();
    assert!(several.data(&asked(None)).unwrap_err().hint.unwrap().contains("`a.jsonl`, `b.txt`"));
    assert_eq!(several.data(&asked(Some("b.txt"))).unwrap().name, "b.txt");
    assert!(list(&["b.parquet"]).unwrap().data(&asked(None)).is_err());
}

#[test]
fn names_that_lead_elsewhere_are_refused_wherever_they_come_from() {
    for name in ["../x", "/etc/passwd", "a/../../b", "a//b", ".", ""] {
        assert!(list(&[name]).is_err(), "{name}");
    }
    let read = |sha: &str, digest: &str| {
        let text = format!(
            r#"{{"sha":"{sha}","siblings":[{{"rfilename":"a","lfs":{{"sha256":"{digest}","size":1}}}}]}}"#
        );
        Listing::read(text.as_bytes(), &asked())
    };
    let (commit, digest) = ("a".repeat(40), "b".repeat(64));
    assert!(read(&commit, &digest).is_ok());
    assert!(read("../../x", &digest).is_err());
    assert!(read(&commit, &format!("../{}", &digest[3..])).is_err());
    for name in ["org", "org/name/more", "../name", "org/..", "a b/c", "a--b/c"] {
        assert!(Asked::of(Kind::Model, name, "main", None).is_err(), "{name}");
    }
    assert!(Asked::of(Kind::Model, "org/name", "../../x", None).is_err());
}

#[test]
fn addresses_are_the_hubs() {
    let asked = Asked::of(Kind::Dataset, "org/name", "refs/pr/1", None).unwrap();
    assert_eq!(asked.listing(), "/api/datasets/org/name/revision/refs%2Fpr%2F1?blobs=true");
    assert_eq!(asked.file("abc", "a dir/b#.txt"), "/datasets/org/name/resolve/abc/a%20dir/b%23.txt");
}
