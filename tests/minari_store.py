"""Datasets as a Minari user begins them, with nothing of ours in them."""

import warnings


def new_store(root, name, env, **told):
    """Return an empty store for episodes of `env` at root/name, and that folder.

    Args:
        root: Folder of datasets.
        name: The dataset's id.
        env: What its spaces and specification are taken from.
        told: More metadata.
    """
    import minari
    from minari.dataset.minari_storage import MinariStorage

    path = root / name / "data"
    path.mkdir(parents=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        store = MinariStorage.new(
            path, env.observation_space, env.action_space, env.spec, jpeg_encoding=False
        )
    store.update_metadata({"dataset_id": name, "minari_version": minari.__version__, **told})
    return store, path.parent
