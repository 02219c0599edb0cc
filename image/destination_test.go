package image

import (
	"errors"
	"strings"
	"testing"

	"github.com/imgwrap/imgwrap/image/registry"
)

func TestDestination(t *testing.T) {
	const digest = "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
	c := registry.New(registry.Options{})
	for _, tt := range []struct {
		source string
		to     Destination
		rewrap bool
		want   string // "" for a UsageError
	}{
		{source: "reg.io/shop/app:1.0", want: "reg.io/shop/app:1.0-otel"},
		{source: "reg.io/app", want: "reg.io/app:latest-otel"},
		{source: "localhost:5000/app:1.0", to: Destination{Tag: "traced"}, want: "localhost:5000/app:traced"},
		{source: "reg.io/app:1.0", to: Destination{Tag: "other.io/app:1.0"}, want: "other.io/app:1.0"},
		{source: "reg.io/app:1.0", to: Destination{Tag: "{{.Repository}}-otel:{{.Tag}}"}, want: "reg.io/app-otel:1.0"},
		{source: "reg.io/app:1.0", to: Destination{Tag: "{{.Tag}}.otel"}, want: "reg.io/app:1.0.otel"},
		{source: "reg.io/app:1.0", to: Destination{InPlace: true}, want: "reg.io/app:1.0"},
		{source: "reg.io/app:1.0-otel", rewrap: true, want: "reg.io/app:1.0-otel"},
		{source: "reg.io/app:1.0-otel", rewrap: true, to: Destination{Tag: "new"}, want: "reg.io/app:new"},
		{source: "reg.io/app@" + digest, to: Destination{Tag: "traced"}, want: "reg.io/app:traced"},
		{source: "reg.io/app:1.0@" + digest, want: "reg.io/app:1.0-otel"},
		{source: "reg.io/app:1.0@" + digest, to: Destination{Tag: "{{.Repository}}-otel:{{.Tag}}"}, want: "reg.io/app-otel:1.0"},
		{source: "reg.io/app:1.0-otel@" + digest, rewrap: true, want: "reg.io/app:1.0-otel"},
		{source: "oci:out:1.0", want: "oci:out:1.0-otel"},
		{source: "oci:out:1.0", to: Destination{Tag: "reg.io/app:1.0"}, want: "reg.io/app:1.0"},
		{source: "reg.io/app:1.0", to: Destination{Tag: "docker-archive:app.tar"}, want: "docker-archive:app.tar"},
		{source: "oci-archive:app.tar", to: Destination{InPlace: true}, want: "oci-archive:app.tar"},
		{source: "docker-daemon:app:1.0", want: "docker-daemon:app:1.0-otel"},

		{source: "oci:out"},
		{source: "docker-daemon:" + digest},
		{source: "reg.io/app@" + digest},
		{source: "reg.io/app@" + digest, to: Destination{InPlace: true}},
		{source: "reg.io/app:1.0@" + digest, to: Destination{InPlace: true}},
		{source: "reg.io/app:1.0@" + digest, to: Destination{Tag: "1.0"}},
		{source: "reg.io/app@" + digest, rewrap: true},
		{source: "reg.io/app:1.0", to: Destination{Tag: "1.0"}},
		{source: "reg.io/app:1.0", to: Destination{Tag: "reg.io/app:1.0"}},
		{source: "reg.io/app:1.0", to: Destination{Tag: "x", InPlace: true}},
		{source: "reg.io/app:1.0", to: Destination{Tag: "no good"}},
		{source: "reg.io/app:" + strings.Repeat("x", 126)},
		{source: "reg.io/app:1.0", to: Destination{Tag: "reg.io/app@" + digest}},
		{source: "reg.io/app:1.0", to: Destination{Tag: "{{.Nothing}}"}},
		{source: "reg.io/app:1.0", to: Destination{Tag: "{{"}},
	} {
		ref, err := c.ParseReference(tt.source)
		if err != nil {
			t.Fatal(err)
		}
		got, err := tt.to.resolve(c, ref, digest, tt.rewrap)
		if tt.want == "" {
			var usage *UsageError
			if !errors.As(err, &usage) || usage.Hint() == "" {
				t.Errorf("%s to %+v: got %v, %v, want a UsageError with a hint", tt.source, tt.to, got, err)
			}
			continue
		}
		if err != nil || got.Name() != tt.want || got.Digest() != "" {
			t.Errorf("%s to %+v: got %v, %v, want %s", tt.source, tt.to, got, err, tt.want)
		}
	}
}
