"""Small data sets made by hand, for the tests of the layouts."""


def make(root, *files):
    """Empty files."""
    for name in files:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def write(root, name, text):
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def summary(dataset):
    return [(record.image_id, record.path, record.wnid, record.label) for record in dataset.records]


def wsoleval_metadata(root, *, ids="val/b.JPEG\nval/a.JPEG\n", labels="val/a.JPEG,1\nval/b.JPEG,0\n"):
    write(root, "image_ids.txt", ids)
    write(root, "class_labels.txt", labels)
    write(root, "image_sizes.txt", "val/a.JPEG,20,10\nval/b.JPEG,0,0\n")
    write(root, "localization.txt", "val/a.JPEG,1,2,25,4\nval/b.JPEG,5,6,7,8\nval/a.JPEG,0,0,1.5,1\n")
