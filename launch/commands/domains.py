"""`vitrine domains …`: the recommenders (LoRA adapters) that share one base encoder."""

from dataclasses import dataclass


@dataclass(frozen=True)
class DomainsOptions:
    store: str = "runs/domains"
    """Folder of the domain store."""


@dataclass(frozen=True)
class DomainOptions:
    name: str
    """Name of the domain."""
    store: str = "runs/domains"
    """Folder of the domain store."""


@dataclass(frozen=True)
class AddDomainOptions:
    name: str
    """Name of the domain."""
    recommender: str
    """Folder of a recommender artifact, trained with LoRA."""
    store: str = "runs/domains"
    """Folder of the domain store."""


def domains_add(options: AddDomainOptions) -> None:
    from finetune.domains import DomainStore

    store = DomainStore.read(options.store, new=True)
    store.add(options.name, options.recommender)
    store.write()


def domains_list(options: DomainsOptions) -> None:
    from finetune.domains import DomainStore

    store = DomainStore.read(options.store)
    print(f"base {store.encoder}")
    for name, folder in store.recommenders.items():
        print(f"{'*' if name == store.in_use else ' '} {name}  {folder}")


def domains_use(options: DomainOptions) -> None:
    from finetune.domains import DomainStore

    store = DomainStore.read(options.store)
    store.use(options.name)
    store.write()


def domains_remove(options: DomainOptions) -> None:
    from finetune.domains import DomainStore

    store = DomainStore.read(options.store)
    store.remove(options.name)
    store.write()
