//! Kernel instructions with labels in place of distances. Only what the program of this folder needs.

/// A register of the kernel's machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Reg(pub u8);

pub(super) const R0: Reg = Reg(0);
pub(super) const R1: Reg = Reg(1);
pub(super) const R2: Reg = Reg(2);
pub(super) const R3: Reg = Reg(3);
pub(super) const R4: Reg = Reg(4);
pub(super) const R5: Reg = Reg(5);
pub(super) const R6: Reg = Reg(6);
pub(super) const R7: Reg = Reg(7);
pub(super) const R8: Reg = Reg(8);
pub(super) const R9: Reg = Reg(9);
/// The end of this function's stack frame.
pub(super) const FRAME: Reg = Reg(10);

/// Arithmetic, as in the upper four bits of an opcode.
#[derive(Clone, Copy, Debug)]
#[repr(u8)]
pub(super) enum Alu {
    Add = 0x00,
    Sub = 0x10,
    Mul = 0x20,
    Div = 0x30,
    Or = 0x40,
    And = 0x50,
    Lsh = 0x60,
    Rsh = 0x70,
    Neg = 0x80,
    Mod = 0x90,
    Xor = 0xA0,
    Mov = 0xB0,
    Arsh = 0xC0,
}

/// Conditions, as in the upper four bits of an opcode.
#[derive(Clone, Copy, Debug)]
#[repr(u8)]
pub(super) enum If {
    Eq = 0x10,
    Gt = 0x20,
    Ge = 0x30,
    Set = 0x40,
    Ne = 0x50,
    SignedGt = 0x60,
    SignedGe = 0x70,
    Lt = 0xA0,
    Le = 0xB0,
    SignedLt = 0xC0,
    SignedLe = 0xD0,
}

/// Bytes of a load or store, as in an opcode.
#[derive(Clone, Copy, Debug)]
#[repr(u8)]
pub(super) enum Size {
    U32 = 0x00,
    U16 = 0x08,
    U8 = 0x10,
    U64 = 0x18,
}

/// The second operand.
#[derive(Clone, Copy, Debug)]
pub(super) enum Operand {
    Reg(Reg),
    Imm(i32),
}

impl From<Reg> for Operand {
    fn from(reg: Reg) -> Self {
        Operand::Reg(reg)
    }
}

impl From<i32> for Operand {
    fn from(imm: i32) -> Self {
        Operand::Imm(imm)
    }
}

/// A place in the code, before or after it is known.
#[derive(Clone, Copy, Debug)]
pub(super) struct Label(usize);

#[derive(Clone, Copy, Debug)]
struct Ins {
    opcode: u8,
    dst: u8,
    src: u8,
    off: i16,
    imm: i32,
}

/// Where a label's distance belongs.
#[derive(Clone, Copy, Debug)]
enum Field {
    Off,
    Imm,
}

/// Code under construction.
#[derive(Debug, Default)]
pub(super) struct Asm {
    code: Vec<Ins>,
    labels: Vec<Option<usize>>,
    open: Vec<(usize, Label, Field)>,
}

impl Asm {
    pub fn label(&mut self) -> Label {
        self.labels.push(None);
        Label(self.labels.len() - 1)
    }

    /// The label stands for the next instruction.
    pub fn bind(&mut self, label: Label) {
        self.labels[label.0] = Some(self.code.len());
    }

    /// Number of the next instruction.
    pub fn position(&self) -> usize {
        self.code.len()
    }

    fn push(&mut self, opcode: u8, dst: Reg, src: u8, off: i16, imm: i32) {
        self.code.push(Ins { opcode, dst: dst.0, src, off, imm });
    }

    fn with(&mut self, opcode: u8, dst: Reg, b: Operand) {
        match b {
            Operand::Reg(src) => self.push(opcode | 8, dst, src.0, 0, 0),
            Operand::Imm(imm) => self.push(opcode, dst, 0, 0, imm),
        }
    }

    pub fn alu(&mut self, op: Alu, dst: Reg, b: impl Into<Operand>) {
        self.with(op as u8 | 7, dst, b.into());
    }

    pub fn mov(&mut self, dst: Reg, b: impl Into<Operand>) {
        self.alu(Alu::Mov, dst, b);
    }

    pub fn neg(&mut self, dst: Reg) {
        self.push(Alu::Neg as u8 | 7, dst, 0, 0, 0);
    }

    /// Keeps the lower 32 bits.
    pub fn cut32(&mut self, dst: Reg) {
        self.with(Alu::Mov as u8 | 4, dst, dst.into());
    }

    /// Sign-extends from the lower `bits`.
    pub fn sign(&mut self, dst: Reg, bits: i32) {
        self.alu(Alu::Lsh, dst, 64 - bits);
        self.alu(Alu::Arsh, dst, 64 - bits);
    }

    /// Reverses the lower `bits` and clears the rest.
    pub fn swap(&mut self, dst: Reg, bits: i32) {
        let opcode = if cfg!(target_endian = "little") { 0xDC } else { 0xD4 };
        self.push(opcode, dst, 0, 0, bits);
    }

    /// From network order to host order.
    pub fn network_to_host(&mut self, dst: Reg, bits: i32) {
        self.push(0xDC, dst, 0, 0, bits);
    }

    pub fn jump(&mut self, condition: If, a: Reg, b: impl Into<Operand>, to: Label) {
        self.open.push((self.code.len(), to, Field::Off));
        self.with(condition as u8 | 5, a, b.into());
    }

    pub fn goto(&mut self, to: Label) {
        self.open.push((self.code.len(), to, Field::Off));
        self.push(5, R0, 0, 0, 0);
    }

    pub fn load(&mut self, size: Size, dst: Reg, base: Reg, off: i16) {
        self.push(0x61 | size as u8, dst, base.0, off, 0);
    }

    pub fn store(&mut self, size: Size, base: Reg, off: i16, b: impl Into<Operand>) {
        match b.into() {
            Operand::Reg(src) => self.push(0x63 | size as u8, base, src.0, off, 0),
            Operand::Imm(imm) => self.push(0x62 | size as u8, base, 0, off, imm),
        }
    }

    pub fn call(&mut self, helper: i32) {
        self.push(0x85, R0, 0, 0, helper);
    }

    pub fn exit(&mut self) {
        self.push(0x95, R0, 0, 0, 0);
    }

    pub fn wide(&mut self, dst: Reg, value: u64) {
        self.wide_from(dst, 0, value);
    }

    /// The map behind descriptor `fd`.
    pub fn map(&mut self, dst: Reg, fd: i32) {
        self.wide_from(dst, 1, u64::from(fd as u32));
    }

    /// A function of this program, for a helper to call.
    pub fn function(&mut self, dst: Reg, at: Label) {
        self.open.push((self.code.len(), at, Field::Imm));
        self.wide_from(dst, 4, 0);
    }

    fn wide_from(&mut self, dst: Reg, src: u8, value: u64) {
        self.push(0x18, dst, src, 0, value as u32 as i32);
        self.push(0, R0, 0, 0, (value >> 32) as u32 as i32);
    }

    /// Goes to `targets[index]`, 0 ≤ `index` < their number, in a binary search. The kernel has no computed jumps.
    pub fn switch(&mut self, index: Reg, targets: &[Label]) {
        self.switch_from(index, 0, targets);
    }

    fn switch_from(&mut self, index: Reg, first: i32, targets: &[Label]) {
        match targets {
            [] => {}
            [one] => self.goto(*one),
            _ => {
                let (low, high) = targets.split_at(targets.len() / 2);
                let middle = first + low.len() as i32;
                let upper = self.label();
                self.jump(If::Ge, index, middle, upper);
                self.switch_from(index, first, low);
                self.bind(upper);
                self.switch_from(index, middle, high);
            }
        }
    }

    /// The kernel's layout, in host byte order.
    pub fn finish(mut self) -> Vec<u8> {
        for (at, label, field) in std::mem::take(&mut self.open) {
            let to = self.labels[label.0].expect("every label in use has a place");
            let distance = to as i64 - at as i64 - 1;
            match field {
                Field::Off => self.code[at].off = i16::try_from(distance).expect("a program of few pages"),
                Field::Imm => self.code[at].imm = i32::try_from(distance).expect("a program of few pages"),
            }
        }
        let encode = |i: &Ins| {
            let registers =
                if cfg!(target_endian = "little") { i.src << 4 | i.dst } else { i.dst << 4 | i.src };
            let [o0, o1] = i.off.to_ne_bytes();
            let [i0, i1, i2, i3] = i.imm.to_ne_bytes();
            [i.opcode, registers, o0, o1, i0, i1, i2, i3]
        };
        self.code.iter().flat_map(encode).collect()
    }
}
