// Verify holds what a controller says about its event log against the log's key, with Go's own implementation of
// signed notes and transparency logs (golang.org/x/mod/sumdb), and with nothing of meshd.
//
//	verify DIRECTORY
//
// The directory has, as meshctl prints them:
//
//	vkey              meshctl log key
//	checkpoint        meshctl log checkpoint
//	entries           meshctl log export
//	proof.json        meshctl --json log prove SEQ           (may be missing)
//	older             an earlier checkpoint                  (may be missing, with the next)
//	consistency.json  meshctl --json log consistency FROM
//	cosigner          a witness's key, which then has to have cosigned the checkpoint (may be missing)
//
// Exit 0: everything holds. Exit 1: something does not, and standard error says what.
package main

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: verify DIRECTORY")
		os.Exit(2)
	}
	said, err := verify(os.Args[1])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println(said)
}

func verify(dir string) (string, error) {
	vkey, err := text(dir, "vkey")
	if err != nil {
		return "", err
	}
	log, err := note.NewVerifier(strings.TrimSpace(vkey))
	if err != nil {
		return "", fmt.Errorf("vkey: %w", err)
	}
	newest, err := text(dir, "checkpoint")
	if err != nil {
		return "", err
	}
	tree, err := checkpoint(newest, log)
	if err != nil {
		return "", fmt.Errorf("checkpoint: %w", err)
	}
	lines, err := text(dir, "entries")
	if err != nil {
		return "", err
	}
	hashes, leaves, err := store(lines)
	if err != nil {
		return "", fmt.Errorf("entries: %w", err)
	}
	if int64(len(leaves)) < tree.N {
		return "", fmt.Errorf("entries: %d, where the checkpoint has %d", len(leaves), tree.N)
	}
	root, err := tlog.TreeHash(tree.N, hashes)
	if err != nil {
		return "", fmt.Errorf("entries: %w", err)
	}
	if root != tree.Hash {
		return "", fmt.Errorf("entries: their root is %v, the checkpoint says %v", root, tree.Hash)
	}
	said := fmt.Sprintf("%d entries have the root that %s signed", tree.N, log.Name())

	if has(dir, "proof.json") {
		seq, err := proof(dir, log, leaves)
		if err != nil {
			return "", fmt.Errorf("proof.json: %w", err)
		}
		said += fmt.Sprintf("; entry %d is one of them", seq)
	}
	if has(dir, "consistency.json") {
		from, to, err := consistency(dir, log, hashes)
		if err != nil {
			return "", fmt.Errorf("consistency.json: %w", err)
		}
		said += fmt.Sprintf("; %d entries extend %d", to, from)
	}
	if has(dir, "cosigner") {
		name, err := cosignature(dir, newest)
		if err != nil {
			return "", fmt.Errorf("cosigner: %w", err)
		}
		said += fmt.Sprintf("; %s has seen it", name)
	}
	return said, nil
}

// checkpoint believes a note that the log signed, and returns the tree that it is of.
func checkpoint(signed string, log note.Verifier) (tlog.Tree, error) {
	var none tlog.Tree
	opened, err := note.Open([]byte(signed), note.VerifierList(log))
	if err != nil {
		return none, err
	}
	lines := strings.Split(opened.Text, "\n")
	if len(lines) != 4 || lines[3] != "" {
		return none, errors.New("not three lines")
	}
	if lines[0] != log.Name() {
		return none, fmt.Errorf("of the log %q, signed by %q", lines[0], log.Name())
	}
	size, err := strconv.ParseInt(lines[1], 10, 64)
	if err != nil || size < 0 || strconv.FormatInt(size, 10) != lines[1] {
		return none, fmt.Errorf("%q is no size", lines[1])
	}
	root, err := tlog.ParseHash(lines[2])
	if err != nil {
		return none, err
	}
	return tlog.Tree{N: size, Hash: root}, nil
}

// store makes the tree of the exported lines. An entry that is no longer kept stands there with its leaf's hash.
func store(lines string) (tlog.HashReaderFunc, []tlog.Hash, error) {
	var stored, leaves []tlog.Hash
	read := func(indexes []int64) ([]tlog.Hash, error) {
		var hashes []tlog.Hash
		for _, index := range indexes {
			if index >= int64(len(stored)) {
				return nil, fmt.Errorf("no hash %d", index)
			}
			hashes = append(hashes, stored[index])
		}
		return hashes, nil
	}
	if lines != "" && !strings.HasSuffix(lines, "\n") {
		return nil, nil, errors.New("the last line has no end")
	}
	for n, line := range strings.Split(strings.TrimSuffix(lines, "\n"), "\n") {
		if lines == "" {
			break
		}
		leaf, err := hash(line, int64(n))
		if err != nil {
			return nil, nil, fmt.Errorf("line %d: %w", n+1, err)
		}
		more, err := tlog.StoredHashesForRecordHash(int64(n), leaf, tlog.HashReaderFunc(read))
		if err != nil {
			return nil, nil, err
		}
		stored = append(stored, more...)
		leaves = append(leaves, leaf)
	}
	return read, leaves, nil
}

func hash(line string, n int64) (tlog.Hash, error) {
	var entry struct {
		Seq  int64
		Leaf *string
		Kind *string
	}
	if err := json.Unmarshal([]byte(line), &entry); err != nil {
		return tlog.Hash{}, err
	}
	if entry.Seq != n+1 {
		return tlog.Hash{}, fmt.Errorf("it is entry %d", entry.Seq)
	}
	if entry.Leaf != nil && entry.Kind == nil {
		return tlog.ParseHash(*entry.Leaf)
	}
	return tlog.RecordHash([]byte(line)), nil
}

// proof verifies that an entry is in a tree that the log signed, and that it is the exported one.
func proof(dir string, log note.Verifier, leaves []tlog.Hash) (int64, error) {
	var said struct {
		Seq        int64
		Line       *string
		Leaf       tlog.Hash
		Proof      tlog.RecordProof
		Checkpoint string
	}
	if err := form(dir, "proof.json", &said); err != nil {
		return 0, err
	}
	tree, err := checkpoint(said.Checkpoint, log)
	if err != nil {
		return 0, err
	}
	if said.Line != nil && tlog.RecordHash([]byte(*said.Line)) != said.Leaf {
		return 0, errors.New("the leaf is not the hash of the line")
	}
	index := said.Seq - 1
	if index < 0 || index < int64(len(leaves)) && leaves[index] != said.Leaf {
		return 0, fmt.Errorf("the leaf is not that of exported entry %d", said.Seq)
	}
	if err := tlog.CheckRecord(said.Proof, tree.N, tree.Hash, index, said.Leaf); err != nil {
		return 0, err
	}
	return said.Seq, nil
}

// consistency verifies that one signed tree extends another, and that both are those of the exported entries.
func consistency(dir string, log note.Verifier, hashes tlog.HashReader) (int64, int64, error) {
	var said struct {
		From, To   int64
		FromRoot   tlog.Hash `json:"from_root"`
		ToRoot     tlog.Hash `json:"to_root"`
		Proof      tlog.TreeProof
		Checkpoint string
	}
	if err := form(dir, "consistency.json", &said); err != nil {
		return 0, 0, err
	}
	signed, err := text(dir, "older")
	if err != nil {
		return 0, 0, err
	}
	older, err := checkpoint(signed, log)
	if err != nil {
		return 0, 0, fmt.Errorf("older: %w", err)
	}
	newer, err := checkpoint(said.Checkpoint, log)
	if err != nil {
		return 0, 0, err
	}
	if older.N != said.From || older.Hash != said.FromRoot {
		return 0, 0, errors.New("it is of another log than the older checkpoint")
	}
	if newer.N != said.To || newer.Hash != said.ToRoot {
		return 0, 0, errors.New("it is of another log than its checkpoint")
	}
	if err := tlog.CheckTree(said.Proof, said.To, said.ToRoot, said.From, said.FromRoot); err != nil {
		return 0, 0, err
	}
	root, err := tlog.TreeHash(said.From, hashes)
	if err != nil || root != said.FromRoot {
		return 0, 0, fmt.Errorf("its older root is not that of the entries: %v", err)
	}
	return said.From, said.To, nil
}

// cosigner verifies what C2SP calls cosignature/v1, which is later than Go's package: the algorithm is 4, and the
// signature covers its own time.
type cosigner struct {
	name string
	key  ed25519.PublicKey
	id   uint32
}

func (c cosigner) Name() string    { return c.name }
func (c cosigner) KeyHash() uint32 { return c.id }

func (c cosigner) Verify(msg, sig []byte) bool {
	if len(sig) != 8+ed25519.SignatureSize {
		return false
	}
	var signed bytes.Buffer
	fmt.Fprintf(&signed, "cosignature/v1\ntime %d\n", binary.BigEndian.Uint64(sig))
	signed.Write(msg)
	return ed25519.Verify(c.key, signed.Bytes(), sig[8:])
}

func cosignature(dir, signed string) (string, error) {
	vkey, err := text(dir, "cosigner")
	if err != nil {
		return "", err
	}
	parts := strings.SplitN(strings.TrimSpace(vkey), "+", 3)
	if len(parts) != 3 {
		return "", errors.New("not NAME+ID+KEY")
	}
	key, err := base64.StdEncoding.DecodeString(parts[2])
	if err != nil || len(key) != 1+ed25519.PublicKeySize || key[0] != 4 {
		return "", errors.New("not an Ed25519 key of a cosigner")
	}
	sum := sha256.Sum256(append([]byte(parts[0]+"\n"), key...))
	id := binary.BigEndian.Uint32(sum[:4])
	if fmt.Sprintf("%08x", id) != parts[1] {
		return "", fmt.Errorf("its id is %08x", id)
	}
	witness := cosigner{parts[0], key[1:], id}
	if _, err := note.Open([]byte(signed), note.VerifierList(witness)); err != nil {
		return "", err
	}
	return witness.name, nil
}

func has(dir, name string) bool {
	_, err := os.Stat(filepath.Join(dir, name))
	return err == nil
}

func text(dir, name string) (string, error) {
	bytes, err := os.ReadFile(filepath.Join(dir, name))
	return string(bytes), err
}

func form(dir, name string, into interface{}) error {
	bytes, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		return err
	}
	return json.Unmarshal(bytes, into)
}
