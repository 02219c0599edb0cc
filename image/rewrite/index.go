package rewrite

import (
	"encoding/json"
	"errors"
	"fmt"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// A Child is what an index becomes of one of its descriptors.
type Child struct {
	// Drop takes the descriptor out.
	Drop bool
	// Content is the manifest or index that the descriptor stands for now; nil
	// leaves the descriptor as it is, byte for byte.
	Content []byte
}

// Index applies edits to an index (OCI image-spec, image-index.md) or a
// manifest list of Docker's: children names descriptors by their place in the
// list, from 0. Of a changed descriptor only digest, size and embedded data
// change; order, platforms and annotations stay. Everything else stays byte for
// byte, but for a subject, which was about other bytes: it is dropped, and
// returned for the caller to report.
func Index(raw []byte, children map[int]Child) (_ []byte, subject *v1.Descriptor, _ error) {
	doc, err := document(raw, "manifests", "subject")
	if err != nil {
		return nil, nil, fmt.Errorf("index %w", err)
	}
	list, err := array(doc.get("manifests"))
	if err != nil {
		return nil, nil, fmt.Errorf("index: manifests %w", err)
	}
	kept := list.items[:0:0]
	applied := 0
	for i, it := range list.items {
		child, ok := children[i]
		if ok {
			applied++
		}
		if child.Drop {
			continue
		}
		if child.Content != nil {
			desc, err := object(it.value, "digest", "size", "data")
			if err != nil {
				return nil, nil, fmt.Errorf("index: descriptor %d %w", i, err)
			}
			d := descriptor(child.Content)
			desc.set("digest", encode(d.Digest.String()))
			desc.set("size", encode(d.Size))
			desc.remove("data")
			it.value = desc.String()
		}
		if len(kept) == 0 {
			it.space = list.items[0].space // without the comma of a later one
		}
		kept = append(kept, it)
	}
	if applied != len(children) {
		return nil, nil, errors.New("index has fewer descriptors than were to be changed")
	}
	if applied == 0 {
		return raw, nil, nil
	}
	list.items = kept
	doc.set("manifests", list.String())
	if text := doc.get("subject"); text != "" {
		if err := json.Unmarshal([]byte(text), &subject); err != nil {
			return nil, nil, fmt.Errorf("index: subject is not a descriptor: %w", err)
		}
		doc.remove("subject")
	}
	return []byte(doc.String()), subject, nil
}
