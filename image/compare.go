package image

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
)

// compare returns the first difference between two JSON documents as an error.
// How they are spelled makes none: copying an image may change that.
func compare(name string, want, got []byte) error {
	w, err := decodeJSON(want)
	if err != nil {
		return err
	}
	g, err := decodeJSON(got)
	if err != nil {
		return err
	}
	return differ(name, w, g)
}

// decodeJSON decodes a document that says nothing twice: of that readers may
// take either.
func decodeJSON(raw []byte) (any, error) {
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		return nil, fmt.Errorf("it is not JSON: %w", err)
	}
	again, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	if tokens(again) != tokens(raw) {
		return nil, errors.New("it has a key twice")
	}
	return v, nil
}

func tokens(raw []byte) (n int) {
	for d := json.NewDecoder(bytes.NewReader(raw)); ; n++ {
		if _, err := d.Token(); err != nil {
			return n
		}
	}
}

func differ(name string, want, got any) error {
	switch w := want.(type) {
	case map[string]any:
		g, ok := got.(map[string]any)
		if !ok {
			break
		}
		keys := maps.Clone(w)
		maps.Copy(keys, g)
		for _, key := range slices.Sorted(maps.Keys(keys)) {
			before, had := w[key]
			now, has := g[key]
			if err := differOne(member(name, key), before, now, had, has); err != nil {
				return err
			}
		}
		return nil
	case []any:
		g, ok := got.([]any)
		if !ok {
			break
		}
		for i := range max(len(w), len(g)) {
			var before, now any
			if i < len(w) {
				before = w[i]
			}
			if i < len(g) {
				now = g[i]
			}
			if err := differOne(fmt.Sprintf("%s[%d]", name, i), before, now, i < len(w), i < len(g)); err != nil {
				return err
			}
		}
		return nil
	default:
		if want == got {
			return nil
		}
	}
	return fmt.Errorf("%s is %s instead of %s", name, shown(got), shown(want))
}

func differOne(name string, want, got any, had, has bool) error {
	switch {
	case !has:
		return fmt.Errorf("%s is not there, it should be %s", name, shown(want))
	case !had:
		return fmt.Errorf("%s should not be there, it is %s", name, shown(got))
	}
	return differ(name, want, got)
}

var plainKey = regexp.MustCompile(`^[\w-]+$`)

func member(name, key string) string {
	switch {
	case !plainKey.MatchString(key):
		return fmt.Sprintf("%s[%q]", name, key)
	case name == "":
		return key
	}
	return name + "." + key
}

// shown is a value for people, cut if it is long.
func shown(v any) string {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return fmt.Sprint(v)
	}
	text := []rune(string(bytes.TrimSpace(b.Bytes())))
	if len(text) > 120 {
		return string(text[:120]) + "…"
	}
	return string(text)
}
