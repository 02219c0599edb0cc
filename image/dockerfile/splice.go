package dockerfile

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
)

// block is one that is in the file: its lines, from 0 on, with the marks.
type block struct {
	begin, end int
	cut        string // what was taken off the end of the line before it
}

// mark says whether a line is the mark.
func mark(line []byte, mark string) bool {
	rest, ok := strings.CutPrefix(strings.TrimSpace(string(line)), mark)
	return ok && (rest == "" || rest[0] == ' ')
}

// findBlocks looks for marks between instructions. Here-documents may hold what
// they like.
func (f *File) findBlocks() error {
	inside := make([]*instruction, len(f.lines))
	for _, i := range f.all {
		for n := i.node.StartLine - 1; n < i.node.EndLine && n < len(f.lines); n++ {
			inside[n] = i
		}
	}
	open := -1
	var cut string
	for n, line := range f.lines {
		begins, ends := mark(line, beginMark), mark(line, endMark)
		if i := inside[n]; i != nil {
			if (begins || ends) && len(i.node.Heredocs) == 0 {
				return &Error{n + 1, fmt.Sprintf("a mark of imgwrap's block is inside of the %s of line %d", i.node.Value, i.node.StartLine), "end that instruction before the block"}
			}
			if open >= 0 && strings.EqualFold(i.node.Value, "FROM") {
				return unclosed(open)
			}
			i.own = open >= 0
			continue
		}
		switch {
		case begins && open >= 0:
			return unclosed(open)
		case begins:
			open, cut = n, ""
		case ends && open < 0:
			return &Error{n + 1, endMark[2:] + " without a " + beginMark[2:] + " before it", "take the line out"}
		case ends:
			f.blocks = append(f.blocks, block{begin: open, end: n, cut: cut})
			open = -1
		case open >= 0 && mark(line, strings.TrimSpace(cutMark)):
			quoted := strings.TrimPrefix(strings.TrimSpace(string(line)), cutMark)
			var err error
			if cut, err = strconv.Unquote(quoted); err != nil {
				return &Error{n + 1, "what was taken off the instruction before the block is not readable: " + quoted, "take the block out by hand"}
			}
		}
	}
	if open >= 0 {
		return unclosed(open)
	}
	return nil
}

func unclosed(begin int) error {
	return &Error{begin + 1, beginMark[2:] + " without a " + endMark[2:] + " behind it", "put the line back, or take the rest of the block out"}
}

// of returns the blocks of a stage, of all stages if it is nil.
func (f *File) of(s *Stage) []block {
	if s == nil {
		return f.blocks
	}
	next := len(f.lines)
	if s.Index+1 < len(f.Stages) {
		next = f.Stages[s.Index+1].Line - 1
	}
	var list []block
	for _, b := range f.blocks {
		if b.begin >= s.Line-1 && b.begin < next {
			list = append(list, b)
		}
	}
	return list
}

// Blocks is how many blocks a stage has, or all stages if it is nil.
func (f *File) Blocks(s *Stage) int { return len(f.of(s)) }

// Undo returns the file without the blocks of a stage, or of all stages if it is
// nil.
func (f *File) Undo(s *Stage) []byte {
	lines := append([][]byte(nil), f.lines...)
	for _, b := range f.of(s) {
		before := b.begin
		newline := ending(f.lines[b.begin])
		if before > 0 && len(f.lines[before-1]) == len(ending(f.lines[before-1])) {
			before--
			newline = string(f.lines[before])
		}
		for n := before; n <= b.end; n++ {
			lines[n] = nil
		}
		if before == 0 {
			continue
		}
		// It was put in behind this line.
		content, end := string(lines[before-1]), newline
		if !strings.HasSuffix(content, end) {
			end = ending(lines[before-1])
		}
		content = strings.TrimSuffix(content, end)
		if b.end == len(f.lines)-1 && ending(f.lines[b.end]) == "" {
			end = "" // the file had no line ending at its end
		}
		lines[before-1] = []byte(content + b.cut + end)
	}
	return bytes.Join(lines, nil)
}

// ending is the line ending of a line, "" if it has none.
func ending(line []byte) string {
	switch {
	case bytes.HasSuffix(line, []byte("\r\n")):
		return "\r\n"
	case bytes.HasSuffix(line, []byte("\n")):
		return "\n"
	}
	return ""
}

// Write returns the file with the block at the end of a stage, in place of the
// one that may be there. Writing the same block again changes nothing.
func (f *File) Write(s *Stage, b Block) ([]byte, error) {
	own := f.of(s)
	if len(own) == 1 && s.last.node.EndLine <= own[0].end {
		return f.replace(own[0], b)
	}
	if len(own) > 0 {
		// It is not at the end any more, or there are several.
		without, err := Parse(f.Undo(s))
		if err != nil {
			return nil, err
		}
		return without.insert(without.Stages[s.Index], b)
	}
	return f.insert(s, b)
}

func (f *File) replace(old block, b Block) ([]byte, error) {
	lines, err := f.write(b, old.cut)
	if err != nil {
		return nil, err
	}
	newline := ending(f.lines[old.begin])
	text := strings.Join(lines, newline) + ending(f.lines[old.end])
	return f.checked(bytes.Join(f.lines[:old.begin], nil), []byte(text), bytes.Join(f.lines[old.end+1:], nil))
}

// insert puts the block behind the last instruction of a stage and an empty
// line.
func (f *File) insert(s *Stage, b Block) ([]byte, error) {
	last, cut, err := f.continued(s.last)
	if err != nil {
		return nil, err
	}
	lines, err := f.write(b, cut)
	if err != nil {
		return nil, err
	}
	before := bytes.Join(f.lines[:last+1], nil)
	newline := ending(f.lines[last])
	before = before[:len(before)-len(newline)-len(cut)]
	end := newline
	if newline == "" { // as there is none at the end of the file, there will be none
		if newline = ending(f.lines[0]); newline == "" {
			newline = "\n"
		}
	}
	text := newline + newline + strings.Join(lines, newline) + end
	return f.checked(before, []byte(text), bytes.Join(f.lines[last+1:], nil))
}

// continued returns the line that an instruction ends in, and what of it says
// that the instruction goes on, although the file does not.
func (f *File) continued(i *instruction) (line int, cut string, err error) {
	line = min(i.node.EndLine, len(f.lines)) - 1
	if len(i.node.Heredocs) > 0 {
		return line, "", nil
	}
	for n := line; n >= i.node.StartLine-1; n-- {
		content := strings.TrimSuffix(string(f.lines[n]), ending(f.lines[n]))
		text := strings.TrimRight(strings.TrimRight(content, "\r"), " \t")
		if bare := strings.TrimSpace(text); bare == "" || bare[0] == '#' {
			continue
		}
		before, ok := strings.CutSuffix(text, string(f.escape))
		if !ok || strings.HasSuffix(before, string(f.escape)) {
			return line, "", nil
		}
		if strings.TrimSpace(before) == "" {
			return 0, "", open(i) // so does the line before
		}
		return n, content[len(before):], nil
	}
	return line, "", nil
}

// open is the error of an instruction that goes on behind the end of the file.
func open(i *instruction) error {
	return &Error{i.node.StartLine, "the instruction has no end that a block can be put behind", "take off the line continuation that nothing follows"}
}

// checked puts the parts together and makes sure that it reads as what it was
// and the block.
func (f *File) checked(before, text, after []byte) ([]byte, error) {
	out := bytes.Join([][]byte{before, text, after}, nil)
	g, err := Parse(out)
	if err != nil {
		return nil, fmt.Errorf("with imgwrap's block: %w", err)
	}
	was, is := f.rest(), g.rest()
	for n := range max(len(was), len(is)) {
		if n >= len(was) || n >= len(is) || !same(was[n], is[n]) {
			return nil, open(f.all[len(f.all)-1])
		}
	}
	return out, nil
}

// rest are the instructions that are in no block.
func (f *File) rest() []*instruction {
	var list []*instruction
	for _, i := range f.all {
		if !i.own {
			list = append(list, i)
		}
	}
	return list
}

// same says whether two instructions read the same.
func same(a, b *instruction) bool {
	if a.node.Original != b.node.Original || len(a.node.Heredocs) != len(b.node.Heredocs) {
		return false
	}
	for n, h := range a.node.Heredocs {
		if h != b.node.Heredocs[n] {
			return false
		}
	}
	return true
}
