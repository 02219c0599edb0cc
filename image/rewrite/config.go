package rewrite

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// An Edit says what is to change in an image. What it leaves at its zero value
// stays as it is.
type Edit struct {
	// Entrypoint replaces the entry point; nil leaves it. Cmd, which a
	// Dockerfile's ENTRYPOINT would clear, always stays.
	Entrypoint []string
	// Env is set in place where the image has the name, else added in this order.
	Env []EnvVar
	// Labels are set in place where the image has the key, else added by key.
	Labels map[string]string
	// Annotations are set on the manifest like Labels on the config. Docker's
	// schema 2 has none: there they are left out.
	Annotations map[string]string
	// Created becomes the image's time and that of the history entries.
	Created time.Time
	// Layers are put on top of the image's own, in this order.
	Layers []Layer
	// Notes say in a history entry each what was changed besides layers, in the
	// words of a Dockerfile: `ENV OTEL_SERVICE_NAME=shop`.
	Notes []string
}

// An EnvVar is a variable of the image's environment.
type EnvVar struct {
	Name, Value string
}

// A Layer is one that is added.
type Layer struct {
	// Digest and Size are those of the gzip-compressed blob.
	Digest v1.Hash
	Size   int64
	// DiffID is the digest of the uncompressed tar.
	DiffID v1.Hash
	// CreatedBy goes into the layer's history entry.
	CreatedBy string
}

// Config applies an edit to an image config.
//
// The history gets an entry for each layer and each note, provided that it
// accounts for the layers that are there. A config whose history is absent or
// does not match its layers is left without entries of ours: they would be taken
// for those of other layers.
func Config(raw []byte, e Edit) ([]byte, error) {
	doc, err := document(raw, "created", "config", "rootfs", "history")
	if err != nil {
		return nil, fmt.Errorf("config %w", err)
	}
	layers, err := addDiffIDs(doc, e.Layers)
	if err != nil {
		return nil, fmt.Errorf("config: %w", err)
	}
	if err := addHistory(doc, layers, e); err != nil {
		return nil, fmt.Errorf("config: %w", err)
	}
	if err := editRuntime(doc, e); err != nil {
		return nil, fmt.Errorf("config: %w", err)
	}
	if !e.Created.IsZero() {
		doc.set("created", encode(timestamp(e.Created)))
	}
	return []byte(doc.String()), nil
}

// BuiltConfig applies an edit to a config that its build has not exported yet.
// The exporter sets the diff IDs and takes the history for complete, so that gets
// its entries in any case; as long as the edit has no time, the exporter also
// sets theirs. The digests of the edit's layers do not matter.
func BuiltConfig(raw []byte, e Edit) ([]byte, error) {
	doc, err := document(raw, "created", "config", "rootfs", "history")
	if err != nil {
		return nil, fmt.Errorf("config %w", err)
	}
	history, layers, err := readHistory(doc)
	if err != nil {
		return nil, fmt.Errorf("config: %w", err)
	}
	if layers+len(e.Layers) > MaxLayers {
		return nil, &LayerLimitError{Layers: layers, Added: len(e.Layers)}
	}
	extendHistory(doc, history, e)
	if err := editRuntime(doc, e); err != nil {
		return nil, fmt.Errorf("config: %w", err)
	}
	if !e.Created.IsZero() {
		doc.set("created", encode(timestamp(e.Created)))
	}
	return []byte(doc.String()), nil
}

// addDiffIDs returns the number of layers there were.
func addDiffIDs(doc *node, layers []Layer) (int, error) {
	rootfs, err := object(doc.get("rootfs"), "diff_ids")
	if err != nil {
		return 0, fmt.Errorf("rootfs %w", err)
	}
	diffIDs, err := array(rootfs.get("diff_ids"))
	if err != nil {
		return 0, fmt.Errorf("rootfs.diff_ids %w", err)
	}
	n := len(diffIDs.items)
	if n == 0 {
		// Nothing to add to: an image without layers, or a config of something else.
		return 0, errors.New("rootfs has no diff_ids")
	}
	if len(layers) == 0 {
		return n, nil
	}
	for _, l := range layers {
		diffIDs.add(item{value: encode(l.DiffID.String())})
	}
	rootfs.set("diff_ids", diffIDs.String())
	doc.set("rootfs", rootfs.String())
	return n, nil
}

// addHistory adds entries to a history of the given number of layers.
func addHistory(doc *node, layers int, e Edit) error {
	history, there, err := readHistory(doc)
	if err != nil {
		return err
	}
	if there == layers {
		extendHistory(doc, history, e)
	}
	return nil
}

// readHistory returns the history and the number of layers that it accounts for.
func readHistory(doc *node) (history *node, layers int, err error) {
	history, err = array(doc.get("history"))
	if err != nil {
		return nil, 0, fmt.Errorf("history %w", err)
	}
	for _, it := range history.items {
		var entry struct {
			EmptyLayer bool `json:"empty_layer"`
		}
		if err := json.Unmarshal([]byte(it.value), &entry); err != nil {
			return nil, 0, fmt.Errorf("history holds %s, which is not an entry", excerpt(it.value))
		}
		if !entry.EmptyLayer {
			layers++
		}
	}
	return history, layers, nil
}

func extendHistory(doc, history *node, e Edit) {
	if len(e.Layers)+len(e.Notes) == 0 {
		return
	}
	type entry struct {
		Created    string `json:"created,omitempty"`
		CreatedBy  string `json:"created_by"`
		EmptyLayer bool   `json:"empty_layer,omitempty"`
	}
	created := ""
	if !e.Created.IsZero() {
		created = timestamp(e.Created)
	}
	for _, l := range e.Layers {
		history.add(item{value: encode(entry{created, l.CreatedBy, false})})
	}
	for _, note := range e.Notes {
		history.add(item{value: encode(entry{created, note, true})})
	}
	doc.set("history", history.String())
}

// editRuntime edits what the image-spec calls the execution parameters.
func editRuntime(doc *node, e Edit) error {
	if e.Entrypoint == nil && len(e.Env) == 0 && len(e.Labels) == 0 {
		return nil
	}
	config, err := object(doc.get("config"), "Entrypoint", "Env", "Labels")
	if err != nil {
		return fmt.Errorf("config %w", err)
	}
	if e.Entrypoint != nil {
		entrypoint, err := replaceArgs(config.get("Entrypoint"), e.Entrypoint)
		if err != nil {
			return fmt.Errorf("config.Entrypoint %w", err)
		}
		config.set("Entrypoint", entrypoint)
	}
	if len(e.Env) > 0 {
		env, err := editEnv(config.get("Env"), e.Env)
		if err != nil {
			return fmt.Errorf("config.Env %w", err)
		}
		config.set("Env", env)
	}
	if len(e.Labels) > 0 {
		labels, err := editMap(config.get("Labels"), e.Labels)
		if err != nil {
			return fmt.Errorf("config.Labels %w", err)
		}
		config.set("Labels", labels)
	}
	doc.set("config", config.String())
	return nil
}

// replaceArgs returns args as an array. Where they end like the old ones, the
// text of the old ones is kept: it can hold bytes that decoding replaces.
func replaceArgs(old string, args []string) (string, error) {
	was, err := array(old)
	if err != nil {
		return "", err
	}
	values := make([]string, len(args))
	for i, arg := range args {
		values[i] = encode(arg)
	}
	for i, j := len(args)-1, len(was.items)-1; i >= 0 && j >= 0; i, j = i-1, j-1 {
		if s, err := text(was.items[j]); err != nil {
			return "", err
		} else if s != args[i] {
			break
		}
		values[i] = was.items[j].value
	}
	return "[" + strings.Join(values, ",") + "]", nil
}

func editEnv(old string, vars []EnvVar) (string, error) {
	env, err := array(old)
	if err != nil {
		return "", err
	}
	names := make([]string, len(env.items))
	for i, it := range env.items {
		s, err := text(it)
		if err != nil {
			return "", err
		}
		names[i], _, _ = strings.Cut(s, "=")
	}
	for _, v := range vars {
		value := encode(v.Name + "=" + v.Value)
		found := false
		for i, name := range names {
			// A name that is there twice is set twice: container engines differ
			// in which one they pass on.
			if name == v.Name {
				env.items[i].value = value
				found = true
			}
		}
		if !found {
			env.add(item{value: value})
			names = append(names, v.Name)
		}
	}
	return env.String(), nil
}

func editMap(old string, set map[string]string) (string, error) {
	m, err := object(old)
	if err != nil {
		return "", err
	}
	for _, name := range slices.Sorted(maps.Keys(set)) {
		m.put(name, encode(set[name]))
	}
	return m.String(), nil
}

func text(it item) (string, error) {
	var s *string
	if err := json.Unmarshal([]byte(it.value), &s); err != nil || s == nil {
		return "", fmt.Errorf("holds %s, which is not a string", excerpt(it.value))
	}
	return *s, nil
}

func excerpt(value string) string {
	if len(value) > 40 {
		return value[:40] + "…"
	}
	return value
}

// timestamp writes a time as the image-spec wants it (RFC 3339, section 5.6).
func timestamp(t time.Time) string {
	return t.UTC().Format(time.RFC3339Nano)
}
