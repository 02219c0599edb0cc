package frontend

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/moby/buildkit/exporter/containerimage/exptypes"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
	"github.com/moby/buildkit/frontend/dockerui"
	"github.com/moby/buildkit/frontend/gateway/client"
	"github.com/moby/buildkit/solver/errdefs"
	"github.com/moby/buildkit/solver/pb"

	"github.com/imgwrap/imgwrap/image"
)

// dockerfile is what was built from, and the line that says what the image runs.
type dockerfile struct {
	*dockerui.Source
	commands []*parser.Node // of the target's stage and those it is from, the last first
}

// readDockerfile reads the Dockerfile again, which the builder has. There may be
// none that can be read, if a frontend of the user's own was to read it.
func (b *build) readDockerfile(ctx context.Context) (*dockerfile, error) {
	ui, err := dockerui.NewClient(b.client)
	if err != nil {
		return nil, err
	}
	source, err := ui.ReadEntrypoint(ctx, "Dockerfile")
	if err != nil {
		return nil, err
	}
	d := &dockerfile{Source: source}
	if parsed, err := parser.Parse(bytes.NewReader(source.Data)); err == nil {
		d.commands = targetCommands(parsed.AST.Children, ui.Target)
	}
	return d, nil
}

// targetCommands are the instructions that make up a stage, and the stages that
// it is from, the last first. An empty name is the last stage's.
func targetCommands(nodes []*parser.Node, target string) []*parser.Node {
	var commands []*parser.Node
	end := len(nodes)
	for end > 0 {
		from := -1
		for i, n := range nodes[:end] {
			if !strings.EqualFold(n.Value, "FROM") {
				continue
			}
			if name := stageName(n); target == "" || strings.EqualFold(name, target) {
				from = i
			}
		}
		if from < 0 {
			break
		}
		stage := nodes[from:end]
		if next := slices.IndexFunc(stage[1:], func(n *parser.Node) bool { return strings.EqualFold(n.Value, "FROM") }); next >= 0 {
			stage = stage[:next+1]
		}
		for _, n := range slices.Backward(stage) {
			commands = append(commands, n)
		}
		if nodes[from].Next == nil {
			break
		}
		target, end = nodes[from].Next.Value, from
	}
	return commands
}

// stageName is the NAME in FROM IMAGE AS NAME.
func stageName(from *parser.Node) string {
	if image := from.Next; image != nil && image.Next != nil && strings.EqualFold(image.Next.Value, "AS") && image.Next.Next != nil {
		return image.Next.Next.Value
	}
	return ""
}

// line finds the instruction that something is about: that which sets a variable,
// else that which says what the image runs.
func (d *dockerfile) line(variable string) []*pb.Range {
	find := func(matches func(n *parser.Node) bool) []*pb.Range {
		i := slices.IndexFunc(d.commands, matches)
		if i < 0 {
			return nil
		}
		n := d.commands[i]
		return []*pb.Range{{Start: &pb.Position{Line: int32(n.StartLine)}, End: &pb.Position{Line: int32(n.EndLine)}}}
	}
	if variable != "" {
		return find(func(n *parser.Node) bool {
			if !strings.EqualFold(n.Value, "ENV") {
				return false
			}
			words := []string{} // name, value and what is between them, in turns
			for w := n.Next; w != nil; w = w.Next {
				words = append(words, w.Value)
			}
			for pair := range slices.Chunk(words, 3) {
				if pair[0] == variable {
					return true
				}
			}
			return false
		})
	}
	for _, instruction := range []string{"ENTRYPOINT", "CMD", "FROM"} {
		if found := find(func(n *parser.Node) bool { return strings.EqualFold(n.Value, instruction) }); found != nil {
			return found
		}
	}
	return nil
}

// blame is the error of an image that cannot be instrumented, at the line of the
// Dockerfile that makes it so.
func (b *build) blame(ctx context.Context, err error) error {
	explained := explain(err)
	if !image.IsRefused(err) {
		return explained
	}
	d, readErr := b.readDockerfile(ctx)
	if readErr != nil {
		return explained
	}
	variable := ""
	if setting, ok := errors.AsType[*image.SettingError](err); ok {
		variable = setting.Variable
	}
	ranges := d.line(variable)
	if ranges == nil {
		return explained
	}
	return errdefs.WithSource(explained, &errdefs.Source{
		Info: &pb.SourceInfo{
			Data:       d.Data,
			Filename:   d.Filename,
			Language:   d.Language,
			Definition: d.Definition.ToPB(),
		},
		Ranges: ranges,
	})
}

// warn passes on what the plans warn of: once, if it is about all platforms.
func (b *build) warn(ctx context.Context, platforms []exptypes.Platform, plans []*image.BuiltPlan, warnings []string) {
	var texts []string
	about := map[string][]string{}
	add := func(text, platform string) {
		if about[text] == nil {
			texts = append(texts, text)
		}
		about[text] = append(about[text], platform)
	}
	for i, p := range plans {
		if p.ImagePlan == nil {
			add("it stays as it is: "+p.Kept, platforms[i].ID)
			continue
		}
		for _, w := range p.Warnings {
			add(w, platforms[i].ID)
		}
	}
	for _, w := range warnings {
		texts = append(texts, w)
	}
	if len(texts) == 0 {
		return
	}
	d, err := b.readDockerfile(ctx)
	if err != nil {
		return // there is nothing to show them at
	}
	for _, text := range texts {
		where := ""
		if on := about[text]; len(on) > 0 && len(on) < len(plans) {
			where = strings.Join(on, ", ") + ": "
		}
		d.Warn(ctx, "imgwrap: "+inArguments(where+text), client.WarnOpts{Range: d.line("")})
	}
}
