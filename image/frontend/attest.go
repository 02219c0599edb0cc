package frontend

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	intoto "github.com/in-toto/in-toto-golang/in_toto"
	"github.com/moby/buildkit/client/llb"
	"github.com/moby/buildkit/exporter/containerimage/exptypes"
	"github.com/moby/buildkit/frontend/attestations/sbom"
	"github.com/moby/buildkit/frontend/gateway/client"
	gatewaypb "github.com/moby/buildkit/frontend/gateway/pb"
	"github.com/moby/buildkit/solver/result"

	"github.com/imgwrap/imgwrap/image"
	"github.com/imgwrap/imgwrap/layer"
	"github.com/imgwrap/imgwrap/layer/catalog"
)

// sbomName is that of the file with our SBOM.
const sbomName = "/imgwrap.spdx.json"

// attest adds an SBOM of what was added beside the one of what was built: that
// was made before. Where there is none, none was asked for, or the builder makes
// one of the whole.
func (b *build) attest(ctx context.Context, platforms []exptypes.Platform, plans []*image.BuiltPlan) error {
	if !sbom.HasSBOM(b.result) {
		return nil
	}
	for i, p := range plans {
		if p.ImagePlan == nil {
			continue
		}
		document, err := spdx(p)
		if err != nil {
			return fmt.Errorf("making the SBOM for %s: %w", platforms[i].ID, err)
		}
		file := llb.Scratch().File(llb.Mkfile(sbomName, 0o644, document, llb.WithCreatedTime(layer.Epoch)),
			llb.WithCustomName("[imgwrap] list what was added"))
		ref, err := b.solve(ctx, file, llb.Platform(platforms[i].Platform))
		if err != nil {
			return err
		}
		b.result.AddAttestation(platforms[i].ID, client.Attestation{
			Kind:     gatewaypb.AttestationKind_InToto,
			Metadata: map[string][]byte{result.AttestationReasonKey: []byte(result.AttestationReasonSBOM)},
			Ref:      ref,
			Path:     sbomName,
			InToto:   result.InTotoAttestation{PredicateType: intoto.PredicateSPDX},
		})
	}
	return nil
}

// spdx is an SPDX 2.3 document of the distributions that a plan adds.
func spdx(p *image.BuiltPlan) ([]byte, error) {
	type reference struct {
		Category string `json:"referenceCategory"`
		Type     string `json:"referenceType"`
		Locator  string `json:"referenceLocator"`
	}
	type checksum struct {
		Algorithm string `json:"algorithm"`
		Value     string `json:"checksumValue"`
	}
	type pkg struct {
		ID               string      `json:"SPDXID"`
		Name             string      `json:"name"`
		Version          string      `json:"versionInfo"`
		FileName         string      `json:"packageFileName"`
		DownloadLocation string      `json:"downloadLocation"`
		FilesAnalyzed    bool        `json:"filesAnalyzed"`
		Checksums        []checksum  `json:"checksums"`
		Concluded        string      `json:"licenseConcluded"`
		Declared         string      `json:"licenseDeclared"`
		Copyright        string      `json:"copyrightText"`
		References       []reference `json:"externalRefs"`
	}
	type relationship struct {
		Element string `json:"spdxElementId"`
		Type    string `json:"relationshipType"`
		Related string `json:"relatedSpdxElement"`
	}
	var document struct {
		Version       string         `json:"spdxVersion"`
		License       string         `json:"dataLicense"`
		ID            string         `json:"SPDXID"`
		Name          string         `json:"name"`
		Namespace     string         `json:"documentNamespace"`
		Creation      map[string]any `json:"creationInfo"`
		Packages      []pkg          `json:"packages"`
		Relationships []relationship `json:"relationships"`
	}
	const none = "NOASSERTION"
	document.Version, document.License, document.ID = "SPDX-2.3", "CC0-1.0", "SPDXRef-DOCUMENT"
	document.Name = "OpenTelemetry " + p.Release.Version + " from imgwrap"
	document.Namespace = "https://github.com/imgwrap/imgwrap/spdx/" + p.Release.Version
	// The same document for the same layers, whenever it is made.
	document.Creation = map[string]any{"created": layer.Epoch.Format(time.RFC3339), "creators": []string{"Tool: imgwrap"}}
	for _, l := range p.Added {
		if l.Tag != "" {
			_, hex, _ := strings.Cut(l.DiffID, ":")
			document.Namespace += "-" + hex[:16]
		}
	}
	for _, d := range p.Distributions {
		id := "SPDXRef-Package-" + d.Name
		document.Packages = append(document.Packages, pkg{
			ID: id, Name: d.Name, Version: d.Version, FileName: d.Wheel,
			DownloadLocation: none, Concluded: none, Declared: none, Copyright: none,
			Checksums:  []checksum{{"SHA256", d.SHA256}},
			References: []reference{{"PACKAGE-MANAGER", "purl", purl(d)}},
		})
		document.Relationships = append(document.Relationships, relationship{document.ID, "DESCRIBES", id})
	}
	return json.Marshal(document)
}

// purl names a distribution (package-url, "pypi"): its name is normalised.
func purl(d catalog.Distribution) string {
	return "pkg:pypi/" + d.Name + "@" + strings.ReplaceAll(d.Version, "+", "%2B")
}
