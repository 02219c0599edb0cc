package main

import (
	"path"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
)

// registries is where the images are.
type registries struct {
	addr string // instead of the host that a reference has
}

// repository is one in a registry, by the name that manifests give it.
type repository struct {
	name string
	repo name.Repository
}

func (r registries) open(repo string) (repository, error) {
	_, rest, _ := strings.Cut(repo, "/")
	opened, err := name.NewRepository(path.Join(r.addr, rest))
	return repository{repo, opened}, err
}

func (r repository) tags() ([]string, error) { return remote.List(r.repo) }

// image returns what a tag names. It is no index.
func (r repository) image(tag string) (v1.Image, error) { return remote.Image(r.repo.Tag(tag)) }

// reference is that of a tag, with the digest.
func (r repository) reference(tag string) (string, error) {
	desc, err := remote.Head(r.repo.Tag(tag))
	if err != nil {
		return "", err
	}
	return r.name + ":" + tag + "@" + desc.Digest.String(), nil
}
